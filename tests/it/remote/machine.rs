//! A machine: a cache folder of its own, and a remote.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use qpipe::cache::remote::{Limits, Pushed, Remote, RemoteEvent, RemoteSpec};
use qpipe::cache::{ActionKey, ActionRecord, Cache, Digest, StoredOutput};
use qpipe::config::RemoteMode;
use qpipe::stages::contract::PortType;

use super::s3::{ID, SECRET};

/// A machine: a cache folder of its own, and a remote.
pub struct Machine {
    pub folder: tempfile::TempDir,
    pub cache: Cache,
    pub remote: Remote,
    warnings: Mutex<Vec<String>>,
    progress: Mutex<Vec<(u64, u64)>>,
}

/// Patience for tests: a failure shows soon, a success is waited for.
pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        stall: Duration::from_secs(5),
        backoff: Duration::from_millis(2),
        part: 5 << 20,
        ..Limits::default()
    }
}

/// A bucket on a server of S3.
pub fn bucket(address: SocketAddr) -> RemoteSpec {
    let endpoint = format!("http://{address}");
    spec(
        "s3://bucket/team",
        &[
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ACCESS_KEY_ID", ID),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_REGION", "us-east-1"),
        ],
    )
}

pub fn spec(url: &str, environment: &[(&str, &str)]) -> RemoteSpec {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let environment: BTreeMap<String, String> = environment.iter().map(own).collect();
    let mode = RemoteMode::ReadWrite;
    RemoteSpec { url: url.to_owned(), mode, environment, limits: limits() }
}

impl Machine {
    pub fn new(spec: &RemoteSpec) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let (warnings, progress) = (Mutex::default(), Mutex::default());
        Self { folder, cache, remote: Remote::open(spec).unwrap(), warnings, progress }
    }

    /// The same machine in the next run.
    pub fn again(self, spec: &RemoteSpec) -> Self {
        let (warnings, progress) = (Mutex::default(), Mutex::default());
        Self { remote: Remote::open(spec).unwrap(), warnings, progress, ..self }
    }

    fn watch(&self) -> impl Fn(RemoteEvent<'_>) {
        |event| match event {
            RemoteEvent::Warning(message) => self.warnings.lock().unwrap().push(message.to_owned()),
            RemoteEvent::Progress { done, total } => {
                self.progress.lock().unwrap().push((done, total));
            }
        }
    }

    pub fn push(&self, record: &ActionRecord) -> Option<Pushed> {
        let pushed = block(self.remote.push(&self.cache, record, &self.watch()));
        println!("pushed {pushed:?}: {:?}", self.warnings.lock().unwrap());
        pushed
    }

    /// Pulls; what the cache has then must be whole.
    pub fn pull(&self, key: &Digest) -> Option<ActionRecord> {
        let record = block(self.remote.pull(&self.cache, key, &self.watch())).unwrap();
        let verified = self.cache.verify().unwrap();
        assert_eq!(verified.faults, [], "{:?}", self.warnings.lock().unwrap());
        if let Some(record) = &record {
            assert!(record.outputs.values().all(|output| self.cache.has(output)));
        }
        record
    }

    pub fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap())
    }

    /// The last progress told, and whether it never passed its total.
    pub fn progress(&self) -> Option<(u64, u64)> {
        let progress = std::mem::take(&mut *self.progress.lock().unwrap());
        assert!(progress.iter().all(|(done, total)| done <= total), "{progress:?}");
        progress.last().copied()
    }

    /// Stores outputs and records them: name → content; `a/b` makes a folder `a`.
    pub fn result(&self, seed: u64, files: &[(&str, &[u8])]) -> ActionRecord {
        let out = self.folder.path().join("cache/out");
        for (name, content) in files {
            let path = out.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, content).unwrap();
            if name.ends_with(".sh") {
                executable(&path);
            }
        }
        let mut outputs = BTreeMap::new();
        for (name, _) in files {
            let name = name.split('/').next().unwrap();
            if outputs.contains_key(name) {
                continue;
            }
            let stored = self.cache.store(&out.join(name)).unwrap();
            let output = StoredOutput {
                digest: stored.digest,
                kind: PortType::File,
                file: name.to_owned(),
                directory: stored.directory,
                bytes: stored.bytes,
            };
            outputs.insert(name.to_owned(), output);
        }
        std::fs::remove_dir_all(&out).unwrap();
        let record = record(seed, outputs);
        self.cache.record(&record).unwrap();
        record
    }

    pub fn read(&self, record: &ActionRecord, name: &str) -> Vec<u8> {
        let (port, rest) = name.split_once('/').map_or((name, None), |(port, it)| (port, Some(it)));
        let path = self.cache.output(&record.outputs[port]);
        std::fs::read(rest.map_or(path.clone(), |rest| path.join(rest))).unwrap()
    }
}

fn executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

pub fn record(seed: u64, outputs: BTreeMap<String, StoredOutput>) -> ActionRecord {
    let key = ActionKey {
        format: ActionKey::FORMAT,
        kind: "command".to_owned(),
        kind_version: 1,
        config: serde_json::json!({ "run": "x" }),
        inputs: BTreeMap::new(),
        seed,
        facts: BTreeMap::new(),
    };
    let text = |text: &str| text.to_owned();
    ActionRecord {
        key,
        outputs,
        metrics: BTreeMap::new(),
        warnings: vec![text("a warning")],
        started: text("2025-01-01T00:00:00Z"),
        seconds: 0.25,
        stage: text("p/a"),
        host: text("h"),
        version: text("0.1.0"),
    }
}

/// Bytes that do not compress.
pub fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 7_u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        noise.extend_from_slice(&(mixed ^ (mixed >> 27)).to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

/// Waits for a future, as the runner does: on one thread. A test that hangs fails.
pub fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(60), future).await.expect("it does not hang")
    })
}
