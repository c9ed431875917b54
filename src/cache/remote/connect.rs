//! The client of a remote's service. It is made at the first request, so that a run that needs
//! nothing of the remote neither reads certificates nor looks for credentials.

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::http::HttpBuilder;
use object_store::local::LocalFileSystem;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ClientOptions, HeaderMap, HeaderValue, ObjectStore, RetryConfig,
};
use url::Url;

use super::RemoteSpec;
use super::bounded::Bounded;
use super::credentials::{self, Profile};
use super::location::Location;
use crate::config::RemoteMode;

/// A service, ready to be asked.
pub(super) struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Large uploads in parts, where the service has them and a part can be sent again.
    pub(super) parts: Option<Arc<dyn MultipartStore>>,
    /// All paths begin with it.
    pub(super) prefix: Path,
    /// Whether an upload can be refused where there is something already.
    pub(super) create: bool,
    /// Whether large uploads can be written piece by piece.
    pub(super) pieces: bool,
}

/// Makes the client; says what is wrong with the settings if it cannot.
pub(super) fn connect(location: &Location, spec: &RemoteSpec) -> Result<Store, String> {
    if !matches!(location, Location::Folder(_)) {
        // What TLS is made of is set once a process; another library's choice is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let built = match location {
        Location::S3 { bucket, prefix } => s3(bucket, prefix, spec),
        Location::Google { bucket, prefix } => google(bucket, prefix, spec),
        Location::Azure { url, prefix } => azure(url, prefix, spec),
        Location::Http { url } => return http(url, spec),
        Location::Folder(folder) => return self::folder(folder, spec),
    };
    built.map_err(|error| super::failure::innermost(&error))
}

/// Ours are the retries: they know the breaker, and go on where a transfer broke off.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Settings of the client as the builders take them. There is no limit for a whole request: how
/// long one may take depends on its size.
fn client_settings(spec: &RemoteSpec) -> [(ClientConfigKey, String); 3] {
    [
        (ClientConfigKey::ConnectTimeout, format!("{}ms", spec.limits.connect.as_millis())),
        (ClientConfigKey::Timeout, "7days".to_owned()),
        (ClientConfigKey::UserAgent, concat!("qpipe/", env!("CARGO_PKG_VERSION")).to_owned()),
    ]
}

/// The variables with that prefix, in lower case as the builders want them.
fn settings<'a>(spec: &'a RemoteSpec, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> {
    let ours =
        move |(name, value): &(&String, &String)| name.starts_with(prefix) && !value.is_empty();
    spec.environment.iter().filter(ours).map(|(name, value)| (name.to_ascii_lowercase(), &**value))
}

fn s3(bucket: &str, prefix: &Path, spec: &RemoteSpec) -> object_store::Result<Store> {
    let mut builder = AmazonS3Builder::new();
    for (name, value) in settings(spec, "AWS_") {
        if let Ok(key) = name.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let profile = Profile::of(spec);
    if let (Some(id), Some(secret)) = (profile.access_key_id, profile.secret_access_key) {
        builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        if let Some(token) = profile.session_token {
            builder = builder.with_token(token);
        }
    }
    if let Some(region) = profile.region {
        builder = builder.with_region(region);
    }
    let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
    let mut endpoint = endpoint.iter().find_map(|name| spec.variable(name)).map(str::to_owned);
    if let (None, Some(url)) = (&endpoint, profile.endpoint_url) {
        builder = builder.with_endpoint(&url);
        endpoint = Some(url);
    }
    if endpoint.is_some_and(|url| url.starts_with("http://")) {
        // Whoever writes the scheme means it; signatures do not give the secret away.
        builder = builder.with_allow_http(true);
    }
    for (key, value) in client_settings(spec) {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_http_connector(Bounded)
        .build()?;
    Ok(in_the_cloud(Arc::new(store), prefix))
}

fn google(bucket: &str, prefix: &Path, spec: &RemoteSpec) -> object_store::Result<Store> {
    let mut builder = GoogleCloudStorageBuilder::new();
    if let Some(path) = spec.variable("SERVICE_ACCOUNT") {
        builder = builder.with_service_account_path(path);
    }
    for (name, value) in settings(spec, "GOOGLE_") {
        if let Ok(key) = name.parse::<GoogleConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    for (key, value) in client_settings(spec) {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        .with_http_connector(Bounded)
        .build()?;
    Ok(in_the_cloud(Arc::new(store), prefix))
}

fn azure(url: &str, prefix: &Path, spec: &RemoteSpec) -> object_store::Result<Store> {
    let mut builder = MicrosoftAzureBuilder::new();
    for (name, value) in settings(spec, "AZURE_") {
        if let Ok(key) = name.parse::<AzureConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    if let Some(endpoint) = spec.variable("IDENTITY_ENDPOINT") {
        builder = builder.with_msi_endpoint(endpoint);
    }
    for (key, value) in client_settings(spec) {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    let store =
        builder.with_url(url).with_retry(no_retries()).with_http_connector(Bounded).build()?;
    Ok(in_the_cloud(Arc::new(store), prefix))
}

fn in_the_cloud<S: ObjectStore + MultipartStore>(store: Arc<S>, prefix: &Path) -> Store {
    Store {
        objects: Arc::clone(&store) as _,
        parts: Some(store),
        prefix: prefix.clone(),
        create: true,
        pieces: true,
    }
}

fn http(url: &Url, spec: &RemoteSpec) -> Result<Store, String> {
    let mut headers = HeaderMap::new();
    if let Some(authorization) = credentials::authorization(spec) {
        let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() == "http" && !loopback {
            return Err("a password or token would travel unencrypted: use https://".to_owned());
        }
        let mut value = HeaderValue::from_str(&authorization).map_err(|_| {
            "the password or token has a character that HTTP cannot send".to_owned()
        })?;
        value.set_sensitive(true);
        headers.insert("authorization", value);
    }
    let mut options = ClientOptions::new().with_default_headers(headers).with_allow_http(true);
    for (key, value) in client_settings(spec) {
        options = options.with_config(key, value);
    }
    let builder = HttpBuilder::new().with_url(url.as_str()).with_client_options(options);
    let store = builder.with_retry(no_retries()).with_http_connector(Bounded).build();
    let store = store.map_err(|error| super::failure::innermost(&error))?;
    Ok(Store {
        objects: Arc::new(store),
        parts: None,
        prefix: Path::default(),
        create: false,
        pieces: false,
    })
}

fn folder(folder: &std::path::Path, spec: &RemoteSpec) -> Result<Store, String> {
    if spec.mode == RemoteMode::ReadWrite {
        std::fs::create_dir_all(folder).map_err(|error| format!("cannot make it: {error}"))?;
    }
    let store = LocalFileSystem::new_with_prefix(folder)
        .map_err(|error| super::failure::innermost(&error))?
        .with_fsync(true);
    Ok(Store {
        objects: Arc::new(store),
        parts: None,
        prefix: Path::default(),
        create: true,
        pieces: true,
    })
}
