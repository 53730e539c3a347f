//! Requests, answers, and waiting for facts.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

use super::process::lock;

/// How long a fact may take to become true.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long after one try the next one is made, so that whoever waits leaves the processor to those who work.
const BETWEEN: Duration = Duration::from_millis(2);

/// A handle for requests to a server.
#[derive(Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    base: String,
    /// Host and port.
    pub(crate) address: String,
    log: Arc<Mutex<String>>,
}

impl Http {
    /// Requests to a server at an address. What it has logged is shown when a test fails.
    pub(super) fn new(address: String, log: Arc<Mutex<String>>) -> Http {
        Http {
            client: reqwest::Client::new(),
            base: format!("http://{address}"),
            address,
            log,
        }
    }

    /// Sends a request. A path that does not begin with `/` stands below `/api/v2/`.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        path: &str,
        refine: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Result<Answer, reqwest::Error> {
        let what = format!("{method} {path}");
        let slash = if path.starts_with('/') {
            ""
        } else {
            "/api/v2/"
        };
        let request = self
            .client
            .request(method, format!("{}{slash}{path}", self.base));
        let response = refine(request).send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.to_vec();
        Ok(Answer {
            what,
            status,
            headers,
            body,
            log: self.log.clone(),
        })
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        refine: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let what = format!("{method} {path}");
        match self.try_send(method, path, refine).await {
            Ok(answer) => answer,
            Err(error) => panic!("no answer to {what}: {error:?}\n{}", lock(&self.log)),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, |request| request).await
    }

    pub(crate) async fn get_with(&self, path: &str, header: (&str, &str)) -> Answer {
        self.send(Method::GET, path, |request| {
            request.header(header.0, header.1)
        })
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, |request| request.json(body))
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, |request| request).await
    }

    /// Waits until the answer to a GET has this status and its body is so.
    pub(crate) async fn until(
        &self,
        path: &str,
        status: u16,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        eventually(&format!("GET {path}"), async || {
            let answer = self.get(path).await;
            let body = answer.value();
            match answer.status == status && is_so(&body) {
                true => Ok(body),
                false => Err(answer.summary()),
            }
        })
        .await
    }
}

/// Asks until the fact holds, and gives what it is. A fact that does not hold says what is so instead.
pub(crate) async fn eventually<T>(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        match holds().await {
            Ok(fact) => return fact,
            Err(instead) if Instant::now() > end => {
                panic!("{what}: not so within {DEADLINE:?}; at last: {instead}")
            }
            Err(_) => tokio::time::sleep(BETWEEN).await,
        }
    }
}

/// The answer to a request.
pub(crate) struct Answer {
    what: String,
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    log: Arc<Mutex<String>>,
}

impl Answer {
    /// Asserts the status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Answer {
        assert_eq!(
            self.status,
            status,
            "{}\nlog:\n{}",
            self.summary(),
            lock(&self.log)
        );
        self
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {}", self.summary()),
        }
    }

    /// The body as JSON, or null when it is none.
    fn value(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header that has to be there.
    #[track_caller]
    pub(crate) fn header(&self, name: &str) -> &str {
        match self.headers.get(name).map(|value| value.to_str()) {
            Some(Ok(value)) => value,
            _ => panic!("no header {name}: {} {:?}", self.summary(), self.headers),
        }
    }

    /// Asserts that this is an error in its envelope, and gives its detail.
    #[track_caller]
    pub(crate) fn error(self, status: u16) -> Value {
        let answer = self.is(status);
        let mut body = answer.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["correlation_id", "detail"], "{}", answer.summary());
        assert_eq!(
            body["correlation_id"],
            answer.header("x-request-id"),
            "{}",
            answer.summary()
        );
        assert_eq!(answer.header("content-type"), "application/json");
        body["detail"].take()
    }

    /// The request, the status and the body in a line.
    pub(crate) fn summary(&self) -> String {
        let mut text = format!("{}: {} ", self.what, self.status);
        let body = self.text();
        let short: String = body.chars().take(3000).collect();
        // Writing to a text cannot fail.
        let _ = write!(text, "{short}");
        text
    }
}
