//! Command lines as a shell takes them.

/// Words as a line for `sh`.
pub fn line<'w>(words: impl IntoIterator<Item = &'w str>) -> String {
    words.into_iter().map(word).collect::<Vec<_>>().join(" ")
}

/// A word, in single quotes where it needs them.
pub fn word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./=:,@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_must_be() {
        let words = ["qpipe", "a b", "it's", "onnx[1]", "", "--set", "x=1"];
        assert_eq!(line(words), r"qpipe 'a b' 'it'\''s' 'onnx[1]' '' --set x=1");
    }
}
