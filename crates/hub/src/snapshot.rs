//! The files of a repository at one commit: taken from the cache, or downloaded into it.

use std::path::PathBuf;
use std::time::Duration;

use crate::cache::{self, RepoCache};
use crate::fetch::{self, Wanted};
use crate::http::{About, Client};
use crate::repo::is_relative;
use crate::{Error, Repo, Result, Settings, Watch};

/// A client of the hub, with the cache in front of it.
pub struct Hub {
    client: Client,
    /// The pause before the first retry of an interrupted download; each further pause is longer by the same
    /// amount.
    pub pause: Duration,
}

impl Hub {
    /// A client with these settings.
    pub fn new(settings: Settings) -> Hub {
        Hub { client: Client::new(settings), pause: Duration::from_secs(1) }
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        self.client.settings()
    }

    /// A snapshot of `repo` at the commit that the cache has for its revision, if any. Nothing is downloaded
    /// yet.
    pub fn snapshot(&self, repo: Repo) -> Snapshot<'_> {
        let cache = RepoCache::new(&self.settings().cache, &repo);
        let commit = cache.commit(&repo.revision);
        Snapshot { hub: self, repo, cache, commit }
    }
}

/// The files of a repository at one commit.
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

    /// The folder of the files, if the commit is known.
    pub fn folder(&self) -> Option<PathBuf> {
        self.commit.as_deref().map(|commit| self.cache.snapshots(commit))
    }

    /// The path of `file`, which is downloaded if it is not in the cache.
    ///
    /// # Errors
    /// Returns any variant of [`Error`] except [`Error::Name`] and [`Error::Setting`].
    pub fn get(&mut self, file: &str, watch: Watch) -> Result<PathBuf> {
        self.look(file, watch)?
            .ok_or_else(|| Error::NoFile { repo: self.repo.to_string(), file: file.to_owned() })
    }

    /// The path of a file that may not exist: `None` if the repository does not contain it, or if the cache
    /// has the repository without the file and the hub is offline or unreachable.
    ///
    /// # Errors
    /// The same errors as [`Snapshot::get`], except [`Error::NoFile`].
    pub fn find(&mut self, file: &str, watch: Watch) -> Result<Option<PathBuf>> {
        match self.look(file, watch) {
            // A dangling link proves that the repository contains the file, so that case stays an error.
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
        // The first file determines the commit of all others.
        let commit = self.commit.clone().unwrap_or(found.commit);
        let wanted = Wanted { about, commit: &commit, etag: &found.etag, size: found.size };
        fetch::blob(client, &self.cache, wanted, self.hub.pause, watch)?;
        let path = self.cache.link(&commit, file, &found.etag)?;
        self.cache.remember(&self.repo.revision, &commit)?;
        self.commit = Some(commit);
        Ok(Some(path))
    }

    /// The link of `file` in the cache and its target, if the target does not exist.
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
