//! A server of S3 on a port of this machine: it checks signatures and honours `If-None-Match`.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

/// The key that the server knows.
pub const ID: &str = "AKIDQPIPE";
/// Its secret.
pub const SECRET: &str = "geheim-und-lang";

/// The server, and what it was asked.
pub struct S3 {
    pub address: SocketAddr,
    root: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl S3 {
    /// Starts it, with an empty bucket `bucket`.
    pub fn start() -> Self {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("bucket")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (folder, log) = (root.path().to_path_buf(), Arc::clone(&requests));
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let serve = serve(listener, folder, log);
            runtime.block_on(async {
                tokio::select! { () = serve => {}, _ = stopped => {} }
            });
        });
        Self { address, root, requests, stop: Some(stop), thread: Some(thread) }
    }

    /// A file in the bucket.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("bucket").join(name)
    }

    /// What it was asked since this was asked last: `PUT /bucket/… [RANGE]`.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, folder: PathBuf, log: Arc<Mutex<Vec<String>>>) {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder).unwrap());
    builder.set_auth(SimpleAuth::from_single(ID, SECRET));
    let service = builder.build();
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        let (service, log) = (service.clone(), Arc::clone(&log));
        let answer = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
            let range = request.headers().get("range").and_then(|range| range.to_str().ok());
            let line = format!("{} {} {}", request.method(), request.uri(), range.unwrap_or(""));
            log.lock().unwrap().push(line.trim_end().to_owned());
            Service::call(&service, request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), answer);
        tokio::spawn(async move {
            let _ = connection.await;
        });
    }
}
