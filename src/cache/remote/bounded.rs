//! Answers of bounded size: a server's errors and acknowledgements are read whole by the clients.

use async_trait::async_trait;
use http_body_util::{BodyExt, Limited};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService, ReqwestConnector,
};

/// Most bytes of an answer that is not a file.
const MOST: usize = 1 << 20;

/// Makes clients that read no more of an answer than [`MOST`], unless it is a file.
#[derive(Debug)]
pub(super) struct Bounded;

impl HttpConnector for Bounded {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Service(client)))
    }
}

#[derive(Debug)]
struct Service(HttpClient);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let reads = request.method().as_str() == "GET";
        let answer = self.0.execute(request).await?;
        if reads && answer.status().is_success() {
            // Whoever asked for a file counts its bytes.
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let body = Limited::new(body, MOST)
            .map_err(|error| HttpError::new_boxed(HttpErrorKind::Decode, error));
        Ok(HttpResponse::from_parts(parts, HttpResponseBody::new(body)))
    }
}
