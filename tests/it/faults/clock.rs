//! Clocks that step, and times of files that lie.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::project::{Project, Said};

/// A stage for each input, so that each is looked at alone.
fn pipeline(names: &[&str]) -> String {
    let stage = |name: &&str| {
        format!(
            "[stages.{name}]\nkind = \"command\"\nrun = \"cat $QPIPE_IN_SRC > $QPIPE_OUT_X\"\nfiles = {{ src = \"{name}.txt\" }}\noutputs = {{ x = \"x\" }}\n\n"
        )
    };
    names.iter().map(stage).collect()
}

fn set_time(path: &Path, time: SystemTime) {
    std::fs::File::open(path).unwrap().set_modified(time).unwrap();
}

fn year(year: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs((year - 1970) * 365 * 86_400)
}

/// Times of modification before and after a change that keeps the size.
fn cases() -> Vec<(&'static str, SystemTime, SystemTime)> {
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    vec![
        ("future", year(2100), year(2100)),
        ("epoch", UNIX_EPOCH, UNIX_EPOCH),
        ("back", now, now - 24 * hour),
        ("ahead", now - hour, now + hour),
        ("same", now - hour, now - hour),
        ("home", year(2100), now),
    ]
}

#[test]
fn no_time_of_a_file_makes_an_old_digest_believed() {
    let cases = cases();
    let names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    let project = Project::new(&pipeline(&names));
    let write = |text: &str, after: bool| {
        for (name, before, later) in &cases {
            project.write(&format!("{name}.txt"), text);
            set_time(&project.path(&format!("{name}.txt")), if after { *later } else { *before });
        }
    };
    write("one", false);
    // Until their digests may be remembered.
    std::thread::sleep(Duration::from_millis(2100));
    project.run(&[]);
    project.run(&[]);
    write("two", true);
    project.run(&[]);
    for name in names {
        assert_eq!(project.artifact(&format!("{name}/x")), "two", "{name}");
    }
}

/// libfaketime, where it is installed.
fn faketime() -> Option<String> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    places.into_iter().find(|place| Path::new(place).exists()).map(str::to_owned)
}

#[test]
fn a_clock_that_steps_between_runs_costs_nothing() {
    let Some(library) = faketime() else {
        println!("skipped: libfaketime is not installed");
        return;
    };
    let project = Project::new(&pipeline(&["a"]));
    let at = |clock: &str, arguments: &[&str]| -> Said {
        let mut command = project.command(arguments);
        command.env("LD_PRELOAD", &library).env("FAKETIME", clock).env("NO_FAKE_STAT", "1");
        project.said(&mut command)
    };
    for (turn, clock) in
        ["+1h", "-1h", "+40y", "-30y", "+0"].into_iter().cycle().take(15).enumerate()
    {
        let text = format!("{turn:04}");
        project.write("a.txt", &text);
        let said = at(clock, &["run", "p.toml"]);
        assert_eq!(said.code, Some(0), "{clock}: {said:?}");
        assert_eq!(project.artifact("a/x"), text, "{clock}: {said:?}");
        let said = at(clock, &["run", "p.toml"]);
        assert_eq!(said.stderr, "a: cached\n", "{clock}");
        let said = at(clock, &["cache", "gc"]);
        assert_eq!(said.code, Some(0), "{clock}: {said:?}");
        project.verify();
    }
}
