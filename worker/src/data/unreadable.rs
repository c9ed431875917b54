//! Images that cannot be read, all of them at once: whoever mends or removes one wants to know of the others, and not by a run for each.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Dataset;
use crate::Error;

/// How long is looked for others.
const PATIENCE: Duration = Duration::from_secs(60);
/// Names of others that are told.
const NAMED: usize = 10;

/// `error`, that of sample `index`, with the names of the others of its data set that cannot be read either. They are looked for by `threads` threads, for a
/// minute at most.
pub(super) fn with_others(error: Error, dataset: &Dataset, index: usize, threads: usize) -> Error {
    let (next, found, start) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let other = next.fetch_add(1, Ordering::Relaxed);
                    if other >= dataset.len() || start.elapsed() > PATIENCE {
                        return;
                    }
                    if other != index && !dataset.is_readable(other) {
                        found.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(other);
                    }
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if found.is_empty() {
        return error;
    }
    found.sort_unstable();
    let names = found.iter().take(NAMED).map(|&other| dataset.name(other));
    let mut names: Vec<String> = names.collect();
    if found.len() > NAMED {
        names.push("…".to_owned());
    }
    let of = match next.into_inner().min(dataset.len()) {
        all if all == dataset.len() => format!("of {all}"),
        some => format!("of the {some} that were looked at of {}", dataset.len()),
    };
    let plural = if found.len() == 1 { "image" } else { "images" };
    let (count, names) = (found.len(), names.join(", "));
    let message = format!("{}; {count} more {plural} {of} cannot be read: {names}", error.message);
    Error { message, ..error }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Loader, Order};
    use super::*;

    #[test]
    fn all_images_that_cannot_be_read_are_told_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let class = folder.path().join("a");
        std::fs::create_dir(&class).unwrap();
        for index in 0..40 {
            let path = class.join(format!("{index:02}.png"));
            match index % 3 {
                0 => std::fs::write(path, "no image").unwrap(),
                _ => image::GrayImage::new(4, 4).save(path).unwrap(),
            }
        }
        let spec = serde_json::json!({"format": "image-folder", "path": "@input", "color": "gray"});
        let load = |limit: usize, skip: usize| {
            let mut spec = spec.clone();
            (spec["limit"], spec["skip"]) = (limit.into(), skip.into());
            let spec = serde_json::from_value(spec).unwrap();
            let paths = BTreeMap::from([("path".to_owned(), folder.path().to_owned())]);
            let dataset = Dataset::open(&spec, &paths).unwrap();
            let mut loader = Loader::new(&dataset, 8, Order::Sequential, false, 3);
            let error = loader.find_map(Result::err).expect("images that cannot be read");
            assert!(loader.next().is_none());
            error.message
        };
        let message = load(40, 0);
        assert!(message.contains("00.png: "), "{message}");
        assert!(message.contains("; 13 more images of 40 cannot be read: "), "{message}");
        let named = message.split_once("cannot be read: ").unwrap().1;
        assert!(named.contains("03.png, ") && named.ends_with("30.png, …"), "{message}");
        assert!(load(6, 0).contains("; 1 more image of 6 cannot be read: "));
        assert!(!load(3, 1).contains("more image"));
    }
}
