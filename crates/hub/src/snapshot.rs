//! The files of one commit of a repository: from the cache, or downloaded into it.

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::{self, RepoCache};
use crate::fetch::{self, Wanted};
use crate::http::{About, Client};
use crate::repo::is_relative;
use crate::{Error, Repo, Result, Settings, Watch};

/// The hub and the cache before it.
pub struct Hub {
    client: Client,
    /// Pause before a download that was cut goes on; each further pause is one longer.
    pub pause: Duration,
}

impl Hub {
    /// The hub that `settings` say.
    pub fn new(settings: Settings) -> Hub {
        Hub { client: Client::new(settings), pause: Duration::from_secs(1) }
    }

    /// What it was made from.
    pub fn settings(&self) -> &Settings {
        self.client.settings()
    }

    /// A repository, at the commit that the cache knows for its revision, if any. Nothing is fetched yet.
    pub fn snapshot(&self, repo: Repo) -> Snapshot<'_> {
        let cache = RepoCache::new(&self.settings().cache, &repo);
        let commit = cache.commit(&repo.revision);
        Snapshot { hub: self, repo, cache, commit }
    }
}

/// Files of a repository at one commit.
pub struct Snapshot<'a> {
    hub: &'a Hub,
    repo: Repo,
    cache: RepoCache,
    commit: Option<String>,
}

impl Snapshot<'_> {
    /// The repository.
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// The folder of the files, once one of them is there.
    pub fn folder(&self) -> Option<PathBuf> {
        self.commit.as_deref().map(|commit| self.cache.snapshots(commit))
    }

    /// The path of `file`, which is downloaded if the cache lacks it.
    ///
    /// # Errors
    /// Each variant of [`Error`] but those about names and settings.
    pub fn get(&mut self, file: &str, watch: Watch) -> Result<PathBuf> {
        self.look(file, watch)?
            .ok_or_else(|| Error::NoFile { repo: self.repo.to_string(), file: file.to_owned() })
    }

    /// The path of a file that may be missing: `None` if the repository has none, and if the cache has the
    /// repository without it and the hub may not or cannot be asked.
    ///
    /// # Errors
    /// As [`Snapshot::get`], but for [`Error::NoFile`].
    pub fn find(&mut self, file: &str, watch: Watch) -> Result<Option<PathBuf>> {
        match self.look(file, watch) {
            // The repository has a file that the cache has a name for.
            Err(Error::Offline { .. } | Error::Unreachable { .. })
                if self.commit.is_some() && self.gone(file).is_none() =>
            {
                Ok(None)
            }
            other => other,
        }
    }

    fn look(&mut self, file: &str, watch: Watch) -> Result<Option<PathBuf>> {
        if !is_relative(file) {
            return Err(Error::FileName { repo: self.repo.to_string(), file: file.to_owned() });
        }
        if let Some(commit) = &self.commit {
            let path = self.cache.snapshots(commit).join(file);
            if path.is_file() {
                return Ok(Some(path));
            }
            if self.cache.absent(commit, file).exists() {
                return Ok(None);
            }
        }
        let client = &self.hub.client;
        if client.settings().offline {
            return Err(self.offline(file));
        }
        let about = About { repo: &self.repo, file };
        let revision = self.commit.as_deref().unwrap_or(&self.repo.revision);
        let Some(found) = client.metadata(about, revision, self.commit.is_some())? else {
            if let Some(commit) = &self.commit {
                cache::write(&self.cache.absent(commit, file), "")?;
            }
            return Ok(None);
        };
        // The first file decides the commit of all.
        let commit = self.commit.clone().unwrap_or(found.commit);
        let wanted = Wanted { about, commit: &commit, etag: &found.etag, size: found.size };
        fetch::blob(client, &self.cache, wanted, self.hub.pause, watch)?;
        let path = self.cache.link(&commit, file, &found.etag)?;
        self.cache.remember(&self.repo.revision, &commit)?;
        self.commit = Some(commit);
        Ok(Some(path))
    }

    /// The file's link in the cache and where it leads, if to nothing.
    fn gone(&self, file: &str) -> Option<(PathBuf, PathBuf)> {
        let link = self.folder()?.join(file);
        let target = cache::dangling(&link)?;
        Some((link, target))
    }

    fn offline(&self, file: &str) -> Error {
        if let Some((link, target)) = self.gone(file) {
            return Error::Gone { repo: self.repo.to_string(), file: file.to_owned(), link, target };
        }
        let folder = self.folder().map(|folder| folder.join(file));
        let looked_for = folder.unwrap_or_else(|| self.cache.reference(&self.repo.revision));
        Error::Offline { repo: self.repo.to_string(), file: file.to_owned(), looked_for }
    }
}
