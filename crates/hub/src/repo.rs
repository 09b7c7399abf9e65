//! The name of a repository, `OWNER/NAME`, with an optional revision.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::{Error, Result};

/// A model repository at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// `OWNER/NAME`, or just `NAME` for some old repositories.
    pub id: String,
    /// A branch, tag or commit.
    pub revision: String,
}

impl FromStr for Repo {
    type Err = Error;

    /// Parses `OWNER/NAME`, which means the revision `main`, or `OWNER/NAME@REVISION`. The rules for names
    /// are those of `huggingface_hub`.
    fn from_str(text: &str) -> Result<Repo> {
        let wrong = |why| Err(Error::Name { text: text.to_owned(), why });
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let parts: Vec<&str> = id.split('/').collect();
        if id.is_empty() || parts.len() > 2 {
            return wrong("it does not have the form OWNER/NAME");
        }
        if id.len() > 96 {
            return wrong("it is longer than 96 letters");
        }
        let letter = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if parts.iter().any(|p| p.is_empty() || !p.chars().all(letter)) {
            return wrong("letters, digits, `-`, `_` and `.` are allowed");
        }
        let edge = |c| c == '-' || c == '.';
        if parts.iter().any(|p| p.starts_with(edge) || p.ends_with(edge)) {
            return wrong("a part begins or ends with `-` or `.`");
        }
        if id.contains("--") || id.contains("..") {
            return wrong("`--` and `..` are not allowed");
        }
        if !is_relative(revision) {
            return wrong("the revision after `@` is invalid");
        }
        Ok(Repo { id: id.to_owned(), revision: revision.to_owned() })
    }
}

impl Repo {
    /// Parses an argument that may be a folder or a repository: returns the repository if `text` has the form
    /// OWNER/NAME and no such folder exists.
    pub fn unless_folder(text: &str) -> Option<Repo> {
        let id = text.split('@').next()?;
        let form = id.matches('/').count() == 1 && !Path::new(text).exists();
        form.then(|| text.parse().ok()).flatten()
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        if self.revision == "main" { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// Whether an untrusted path stays below the folder that it is joined to, on any operating system.
pub(crate) fn is_relative(path: &str) -> bool {
    !path.contains(['\\', ':', '\0']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// Whether a text from a server, such as a commit or an ETag, is safe as one component of a path.
pub(crate) fn is_component(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=128).contains(&text.len()) && text.chars().all(allowed) && !text.starts_with('.')
}
