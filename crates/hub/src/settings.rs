//! The settings: cache folder, host and token, from the environment variables of `huggingface_hub`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Error, Limits, Result};

const PUBLIC: &str = "https://huggingface.co";

/// The settings of a [`crate::Hub`]. Variables and defaults are those of `huggingface_hub`.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The cache folder: HF_HUB_CACHE, otherwise `hub` in HF_HOME, otherwise `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// The URL of the hub without a slash at the end: HF_ENDPOINT, otherwise `https://huggingface.co`.
    pub endpoint: String,
    /// HF_TOKEN, otherwise the contents of the file HF_TOKEN_PATH, otherwise of `token` in HF_HOME.
    pub token: Option<Token>,
    /// Whether only the cache is used: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE.
    pub offline: bool,
    /// The limits of downloads.
    pub limits: Limits,
}

/// An access token. Its value is never shown, not even by `{:?}`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The token in `text`; `None` if it contains only white space.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] if it contains characters that are not allowed in a token, such as a line
    /// break, which would break the HTTP header.
    pub fn new(text: &str) -> Result<Option<Token>> {
        let text = text.trim();
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Error::Setting {
                name: "HF_TOKEN",
                why: "(or the token file) holds characters that are in no token",
            });
        }
        Ok((!text.is_empty()).then(|| Token(text.to_owned())))
    }

    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Settings {
    /// The settings from the environment.
    ///
    /// # Errors
    /// Returns [`Error::Setting`] for an endpoint that is not a URL, a malformed token or timeout, or if the
    /// cache folder cannot be determined.
    pub fn from_env() -> Result<Settings> {
        Settings::from_vars(|name| std::env::var(name).ok(), std::env::home_dir().as_deref())
    }

    /// The settings from environment variables that `var` looks up; `home` is the user's home folder.
    ///
    /// # Errors
    /// The same errors as [`Settings::from_env`].
    pub fn from_vars(var: impl Fn(&str) -> Option<String>, home: Option<&Path>) -> Result<Settings> {
        let set = |name: &str| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let folder = |name: &str| {
            let text = set(name)?;
            Some(match (text.strip_prefix("~/"), home) {
                (Some(rest), Some(home)) => home.join(rest),
                _ => PathBuf::from(text),
            })
        };
        let common = folder("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
        let hf_home = folder("HF_HOME").or_else(|| Some(common?.join("huggingface")));
        let cache = folder("HF_HUB_CACHE").or_else(|| folder("HUGGINGFACE_HUB_CACHE"));
        let Some(cache) = cache.or_else(|| Some(hf_home.as_ref()?.join("hub"))) else {
            return Err(Error::Setting { name: "HF_HOME", why: "is not set, and there is no home folder" });
        };
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| PUBLIC.to_owned());
        let endpoint = endpoint.trim_end_matches('/').to_owned();
        let host = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
        if host.is_none_or(|h| h.is_empty() || h.contains(['@', ' ', '?', '#'])) {
            return Err(Error::Setting { name: "HF_ENDPOINT", why: "is no address: https://HOST is needed" });
        }
        let yes = |name: &str| {
            let value = var(name).unwrap_or_default().to_ascii_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let stored = || {
            let file = folder("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")))?;
            std::fs::read_to_string(file).ok()
        };
        let token = set("HF_TOKEN").or_else(|| set("HUGGING_FACE_HUB_TOKEN")).or_else(stored);
        let token = token.map(|text| Token::new(&text)).transpose()?.flatten();
        let offline = yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE");
        let mut limits = Limits::default();
        if let Some(seconds) = set("HF_HUB_DOWNLOAD_TIMEOUT") {
            let seconds = seconds.parse().ok().filter(|seconds: &u32| (1..=86400).contains(seconds));
            let why = "is no number of seconds from 1 to 86400";
            let seconds = seconds.ok_or(Error::Setting { name: "HF_HUB_DOWNLOAD_TIMEOUT", why })?;
            limits.patience = Duration::from_secs(seconds.into());
        }
        Ok(Settings { cache, endpoint, token, offline, limits })
    }
}
