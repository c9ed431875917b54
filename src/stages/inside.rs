//! Paths that stay below the folder that they are joined to.

/// Whether a path is relative and stays below the folder that it is joined to.
pub fn is_inside(path: &str) -> bool {
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    !path.is_empty()
        && !path.contains('\0')
        && !path.ends_with('/')
        && !path.contains("//")
        && !path.split('/').any(|part| part == ".")
        && std::path::Path::new(path).components().all(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_folder_are_known() {
        assert!(["a", "a/b.c", "..a", "a b"].into_iter().all(is_inside));
        let bad = ["", "/a", "..", "a/../b", "../a", "./a", "a/./b", "a//b", "a/", "a\0b"];
        assert!(!bad.into_iter().any(is_inside));
    }
}
