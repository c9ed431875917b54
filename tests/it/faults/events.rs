//! What runs said with `--json`, and what they left running.

use serde_json::Value;

use crate::project::{Project, lives};

/// The stages that an event names, in order.
pub fn stages(stdout: &str, event: &str) -> Vec<String> {
    // The last line of a killed run may be cut short.
    let events = stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let named = events.filter(|found| found["event"] == event);
    named.filter_map(|found| Some(found["stage"].as_str()?.to_owned())).collect()
}

/// Processes that were started in a project and live: its path stands in their environment.
pub fn strays(project: &Project) -> Vec<String> {
    let path = project.path("").display().to_string();
    let path = path.trim_end_matches('/').as_bytes();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let of_project = |pid: &String| {
        pid.parse::<u32>().is_ok()
            && std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|text| text.windows(path.len()).any(|part| part == path))
            && lives(pid)
    };
    pids.filter(of_project).collect()
}

/// The processes that a process started.
pub fn children(pid: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>()
        })
        .collect()
}
