//! HTTP requests to the hub. Redirects are followed here and not by the HTTP library, so that the token is
//! sent only to the hub.

use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::{Agent, Body};

use crate::{Error, Repo, Result, Settings};

const MAX_REDIRECTS: usize = 10;
const CONNECT: Duration = Duration::from_secs(15);
const FIRST_BYTE: Duration = Duration::from_secs(60);

/// The subject of a request, for errors.
#[derive(Clone, Copy)]
pub(crate) struct About<'a> {
    pub(crate) repo: &'a Repo,
    pub(crate) file: &'a str,
}

impl About<'_> {
    pub(crate) fn protocol(self, url: &str, why: &'static str) -> Error {
        let (repo, file) = (self.repo.to_string(), self.file.to_owned());
        Error::Protocol { repo, file, host: host(url), why }
    }
}

pub(crate) struct Client {
    agent: Agent,
    settings: Settings,
}

/// A response with the URL that it came from.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    pub(crate) url: String,
}

/// The metadata of a file.
pub(crate) struct Metadata {
    pub(crate) commit: String,
    pub(crate) etag: String,
    pub(crate) size: Option<u64>,
}

impl Client {
    pub(crate) fn new(settings: Settings) -> Client {
        let agent = Agent::config_builder()
            .max_redirects(0)
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(FIRST_BYTE))
            // A read that times out is an interruption, after which the download resumes.
            .timeout_per_read(Some(settings.limits.patience))
            .user_agent(concat!("pheye/", env!("CARGO_PKG_VERSION")))
            // No compression, so that sizes and ranges refer to the file itself.
            .accept_encoding("identity")
            .build();
        Client { agent: agent.into(), settings }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The URL of a file at a revision.
    fn url(&self, about: About, revision: &str) -> String {
        let (endpoint, id) = (&self.settings.endpoint, &about.repo.id);
        format!("{endpoint}/{id}/resolve/{}/{}", escape(revision, ""), escape(about.file, "/"))
    }

    /// The commit, ETag and size of a file; `None` if the repository does not contain it. `known` says that
    /// the repository exists.
    ///
    /// For large files the hub answers with a redirect to a store, and this answer already has the metadata.
    /// For a renamed repository it redirects to itself.
    pub(crate) fn metadata(&self, about: About, revision: &str, known: bool) -> Result<Option<Metadata>> {
        let mut url = self.url(about, revision);
        let (mut commit, mut etag, mut size) = (None, None, None);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(about, &url, "HEAD", 0)?;
            let header = |name: &str| response.headers().get(name)?.to_str().ok().map(str::to_owned);
            commit = commit.or_else(|| header("x-repo-commit"));
            etag = etag.or_else(|| header("x-linked-etag"));
            size = size.or_else(|| header("x-linked-size"));
            let to = redirect(about, &url, &response)?;
            let status = response.status().as_u16();
            if to.is_none() {
                if status == 404 {
                    let code = header("x-error-code");
                    return match code.as_deref() {
                        Some("EntryNotFound") => Ok(None),
                        None if known => Ok(None),
                        _ => Err(self.no_repo(about)),
                    };
                }
                self.check(about, &url, status)?;
                etag = etag.or_else(|| header("etag"));
                size = size.or_else(|| header("content-length"));
            }
            match to {
                // A redirect to a store is not followed once the hub has sent the ETag.
                Some(to) if etag.is_none() || same_origin(&url, &to) => url = to,
                _ => {
                    let text = |text: Option<String>| text.as_deref().map(plain).map(str::to_owned);
                    let commit = text(commit).filter(|c| crate::repo::is_component(c));
                    let etag = text(etag).map(checksum).filter(|e| crate::repo::is_component(e));
                    let Some((commit, etag)) = commit.zip(etag) else {
                        return Err(about.protocol(&url, "names no commit or ETag"));
                    };
                    let size = size.and_then(|text| text.parse().ok());
                    return Ok(Some(Metadata { commit, etag, size }));
                }
            }
        }
        Err(about.protocol(&url, "is redirected without end"))
    }

    /// The contents of a file from byte `from` on, or from its beginning if the server does not support
    /// ranges.
    pub(crate) fn get(&self, about: About, commit: &str, from: u64) -> Result<Answer> {
        let mut url = self.url(about, commit);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send(about, &url, "GET", from)?;
            match redirect(about, &url, &response)? {
                Some(to) => url = to,
                None => {
                    let status = response.status().as_u16();
                    if status == 404 {
                        return Err(self.no_repo(about));
                    }
                    // Status 416: the file has no bytes after `from`.
                    if status != 416 {
                        self.check(about, &url, status)?;
                    }
                    return Ok(Answer { response, url });
                }
            }
        }
        Err(about.protocol(&url, "is redirected without end"))
    }

    fn send(&self, about: About, url: &str, method: &str, from: u64) -> Result<Response<Body>> {
        let mut request = if method == "HEAD" { self.agent.head(url) } else { self.agent.get(url) };
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = &self.settings.token
            && same_origin(url, &self.settings.endpoint)
        {
            request = request.header("Authorization", token.header());
        }
        request.call().map_err(|error| Error::Unreachable {
            repo: about.repo.to_string(),
            file: about.file.to_owned(),
            host: host(url),
            why: error.to_string(),
        })
    }

    fn no_repo(&self, about: About) -> Error {
        Error::NoRepo { repo: about.repo.to_string(), endpoint: self.settings.endpoint.clone() }
    }

    fn check(&self, about: About, url: &str, status: u16) -> Result<()> {
        let (repo, file) = (about.repo.to_string(), about.file.to_owned());
        match status {
            200..=299 => Ok(()),
            401 | 403 if same_origin(url, &self.settings.endpoint) => {
                let advice = if self.settings.token.is_some() {
                    "the token (HF_TOKEN or the token file) may not read it: accept the model's conditions on its \
                     page, or take another token"
                } else {
                    "set HF_TOKEN to a token that may read it, and check the name: the hub says the same of \
                     repositories that do not exist"
                };
                Err(Error::Denied { repo, file, endpoint: self.settings.endpoint.clone(), status, advice })
            }
            _ => Err(Error::Status { repo, file, host: host(url), status }),
        }
    }
}

/// The target of a redirect, or `None` if the response is not a redirect.
fn redirect(about: About, url: &str, response: &Response<Body>) -> Result<Option<String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = response.headers().get("location").and_then(|to| to.to_str().ok()).and_then(|to| join(url, to));
    to.map(Some).ok_or_else(|| about.protocol(url, "is a redirect without a valid location"))
}

/// An ETag without its syntax: `W/"abc"` becomes `abc`.
fn plain(etag: &str) -> &str {
    let etag = etag.trim();
    etag.strip_prefix("W/").or_else(|| etag.strip_prefix("w/")).unwrap_or(etag).trim_matches('"')
}

/// An ETag in lower case if it is a checksum, because some stores write it in upper case.
fn checksum(etag: String) -> String {
    let hex = matches!(etag.len(), 40 | 64) && etag.bytes().all(|b| b.is_ascii_hexdigit());
    if hex { etag.to_ascii_lowercase() } else { etag }
}

/// Resolves the location `to` relative to `url`.
fn join(url: &str, to: &str) -> Option<String> {
    let base: Uri = url.parse().ok()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let joined = if to.starts_with("https://") || to.starts_with("http://") {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{authority}{to}")
    } else {
        let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{authority}{folder}/{to}")
    };
    joined.parse::<Uri>().ok().filter(|uri| uri.host().is_some()).map(|_| joined)
}

/// Whether scheme, host and port are the same.
fn same_origin(a: &str, b: &str) -> bool {
    let origin = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some((scheme, uri.host()?.to_ascii_lowercase(), port))
    };
    origin(a).is_some() && origin(a) == origin(b)
}

/// Only host and port of a URL: the rest of a store's URL is a signature that grants access.
pub(crate) fn host(url: &str) -> String {
    let uri: Option<Uri> = url.parse().ok();
    let of = |uri: Uri| {
        Some(format!("{}{}", uri.host()?, uri.port_u16().map_or(String::new(), |p| format!(":{p}"))))
    };
    uri.and_then(of).unwrap_or_default()
}

/// Percent-encodes all characters except letters, digits, `-._~` and those in `keep`.
fn escape(text: &str, keep: &str) -> String {
    let byte = |b: u8| match b {
        b if b.is_ascii_alphanumeric() || b"-._~".contains(&b) || keep.as_bytes().contains(&b) => {
            char::from(b).to_string()
        }
        b => format!("%{b:02X}"),
    };
    text.bytes().map(byte).collect()
}
