//! Names, settings, and caches created by the Python library.

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use common::{COMMIT, git, sha256};
use pheye_hub::{Error, Repo, Settings};

fn settings(vars: &[(&str, &str)], home: Option<&str>) -> pheye_hub::Result<Settings> {
    let vars: HashMap<_, _> = vars.iter().copied().collect();
    Settings::from_vars(|name| vars.get(name).map(|v| (*v).to_owned()), home.map(Path::new))
}

/// A cache in the layout of `huggingface_hub`: blobs, a reference, relative links, and a file in a folder.
#[cfg(unix)]
fn pythons(cache: &Path) {
    let root = cache.join("models--microsoft--phi-1_5");
    let snapshot = root.join("snapshots").join(COMMIT);
    for folder in ["blobs", "refs"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::create_dir_all(snapshot.join("sub")).unwrap();
    fs::write(root.join("refs/main"), COMMIT).unwrap();
    for (file, body, etag, up) in [
        ("tokenizer.json", "{\"t\":1}", git(b"{\"t\":1}"), "../../"),
        ("sub/weights", "www", sha256(b"www"), "../../../"),
    ] {
        fs::write(root.join("blobs").join(&etag), body).unwrap();
        std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), snapshot.join(file)).unwrap();
    }
    // A link whose target was deleted.
    std::os::unix::fs::symlink("../../blobs/gone", snapshot.join("gone")).unwrap();
}

#[cfg(unix)]
#[test]
fn offline_hits_and_misses() {
    let dir = tempfile::tempdir().unwrap();
    pythons(dir.path());
    let hub = common::hub("http://127.0.0.1:9", dir.path(), true);
    let mut phi = hub.snapshot("microsoft/phi-1_5".parse().unwrap());
    let file = phi.get("tokenizer.json", &mut |_| ()).unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "{\"t\":1}");
    assert_eq!(fs::read_to_string(phi.get("sub/weights", &mut |_| ()).unwrap()).unwrap(), "www");
    let error = phi.get("config.json", &mut |_| ()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Offline { .. }), "{text}");
    assert!(
        text.contains("config.json") && text.contains(COMMIT) && text.contains("HF_HUB_OFFLINE"),
        "{text}"
    );
    assert_eq!(phi.find("config.json", &mut |_| ()).unwrap(), None);
    // A file whose contents are missing differs from a file that the repository does not contain.
    for error in [phi.get("gone", &mut |_| ()).unwrap_err(), phi.find("gone", &mut |_| ()).unwrap_err()] {
        let text = error.to_string();
        assert!(matches!(error, Error::Gone { .. }), "{text}");
        assert!(text.starts_with("microsoft/phi-1_5: gone in the cache is a link"), "{text}");
        assert!(text.contains("blobs/gone") && text.contains("HF_HUB_OFFLINE"), "{text}");
    }
    assert_eq!(pheye_hub::cached(dir.path()), ["microsoft/phi-1_5"]);
    assert!(pheye_hub::cached(&dir.path().join("none")).is_empty());
    // A snapshot is also found by its commit.
    let mut pinned = hub.snapshot(format!("microsoft/phi-1_5@{COMMIT}").parse().unwrap());
    pinned.get("tokenizer.json", &mut |_| ()).unwrap();

    let error = hub.snapshot("owner/none".parse().unwrap()).find("config.json", &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("models--owner--none"), "{error}");

    // Without a network, but not in offline mode: cached files are found all the same.
    let hub = common::hub("http://127.0.0.1:9", dir.path(), false);
    let mut phi = hub.snapshot("microsoft/phi-1_5".parse().unwrap());
    phi.get("tokenizer.json", &mut |_| ()).unwrap();
    assert_eq!(phi.find("tokenizer_config.json", &mut |_| ()).unwrap(), None);
    assert!(matches!(phi.get("config.json", &mut |_| ()), Err(Error::Unreachable { .. })));
    assert!(matches!(phi.find("gone", &mut |_| ()), Err(Error::Unreachable { .. })));
}

#[test]
fn names() {
    for (text, id, revision) in [
        ("miguelcarv/Pheye-x4-672", "miguelcarv/Pheye-x4-672", "main"),
        ("gpt2", "gpt2", "main"),
        ("a/b@refs/pr/1", "a/b", "refs/pr/1"),
    ] {
        let repo: Repo = text.parse().unwrap();
        assert_eq!((repo.id.as_str(), repo.revision.as_str()), (id, revision));
        assert_eq!(repo.to_string(), text);
    }
    for wrong in [
        "", "/", "a/", "/b", "a/b/c", "a b/c", "../x", "a/..", ".a/b", "a/b-", "a--b/c", "a/b@", "a/b@../c",
        "a/b@/c", "é/b",
    ] {
        assert!(matches!(wrong.parse::<Repo>(), Err(Error::Name { .. })), "{wrong}");
    }
    assert!(Repo::unless_folder("owner/name").is_some());
    for folder in ["models", "./models", "/etc/x", "a/b/c", "src/cache.rs", "../x"] {
        assert!(Repo::unless_folder(folder).is_none(), "{folder}");
    }
}

#[test]
fn the_environment() {
    let s = settings(&[], Some("/home/me")).unwrap();
    assert_eq!(s.cache, Path::new("/home/me/.cache/huggingface/hub"));
    assert_eq!((s.endpoint.as_str(), s.offline), ("https://huggingface.co", false));
    assert!(s.token.is_none());
    let cache = |vars: &[(&str, &str)]| settings(vars, Some("/h")).unwrap().cache;
    assert_eq!(cache(&[("XDG_CACHE_HOME", "/x")]), Path::new("/x/huggingface/hub"));
    assert_eq!(cache(&[("HF_HOME", "~/hf"), ("XDG_CACHE_HOME", "/x")]), Path::new("/h/hf/hub"));
    assert_eq!(cache(&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/hf")]), Path::new("/c"));
    let mirror = settings(&[("HF_ENDPOINT", "http://mirror:8080/hf/")], Some("/h")).unwrap();
    assert_eq!(mirror.endpoint, "http://mirror:8080/hf");
    for (value, offline) in [("1", true), ("true", true), ("Yes", true), ("0", false), ("", false)] {
        assert_eq!(settings(&[("HF_HUB_OFFLINE", value)], Some("/h")).unwrap().offline, offline, "{value}");
    }
    for wrong in ["huggingface.co", "ftp://x", "https://", "https://me:pass@x"] {
        let error = settings(&[("HF_ENDPOINT", wrong)], Some("/h")).unwrap_err();
        assert!(error.to_string().starts_with("HF_ENDPOINT"), "{error}");
    }
    let patience = |seconds: &str| settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", seconds)], Some("/h"));
    assert_eq!(patience("7").unwrap().limits.patience.as_secs(), 7);
    assert_eq!(s.limits.patience.as_secs(), 60);
    for wrong in ["0", "-1", "soon", "1e9", "99999999999"] {
        let error = patience(wrong).unwrap_err().to_string();
        assert!(error.starts_with("HF_HUB_DOWNLOAD_TIMEOUT is no number"), "{error}");
    }
    assert!(settings(&[], None).unwrap_err().to_string().contains("HF_HOME"));
    assert!(settings(&[("HF_HOME", "/x")], None).is_ok());
}

#[test]
fn where_the_token_is() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    let token = |vars: &[(&str, &str)]| settings(vars, Some("/h")).map(|s| s.token);
    let hf = pheye_hub::Token::new("hf_a").unwrap();
    assert_eq!(token(&[("HF_HOME", home)]).unwrap(), None);
    fs::write(dir.path().join("token"), "hf_a\n").unwrap();
    assert_eq!(token(&[("HF_HOME", home)]).unwrap(), hf);
    assert_eq!(
        token(&[("HF_HOME", home), ("HF_TOKEN", "hf_b")]).unwrap(),
        pheye_hub::Token::new("hf_b").unwrap()
    );
    let path = dir.path().join("token");
    assert_eq!(token(&[("HF_TOKEN_PATH", path.to_str().unwrap())]).unwrap(), hf);
    let error = token(&[("HF_TOKEN", "hf_a\nX-Evil: 1")]).unwrap_err().to_string();
    assert!(!error.contains("hf_a"), "{error}");
}

/// Models are listed with their sizes, also those of interrupted downloads, and removed one at a time.
#[cfg(unix)]
#[test]
fn models_are_listed_and_removed() {
    let temp = tempfile::tempdir().unwrap();
    let cache = temp.path();
    assert!(pheye_hub::list(cache).is_empty());
    pythons(cache);
    let other = cache.join("models--me--half");
    fs::create_dir_all(other.join("blobs")).unwrap();
    fs::write(other.join("blobs/abc.incomplete"), [0; 700]).unwrap();
    // Neither is a model.
    fs::create_dir_all(cache.join("datasets--me--data/blobs")).unwrap();
    fs::create_dir_all(cache.join("models--..--evil")).unwrap();

    let listed = pheye_hub::list(cache);
    let ids: Vec<&str> = listed.iter().map(|model| model.id.as_str()).collect();
    assert_eq!(ids, ["me/half", "microsoft/phi-1_5"]);
    assert_eq!((listed[0].bytes, listed[0].incomplete, &listed[0].snapshot), (0, 700, &None));
    assert_eq!((listed[1].bytes, listed[1].incomplete), (10, 0));
    assert_eq!(listed[1].revisions, [("main".to_owned(), COMMIT.to_owned())]);
    assert!(listed[1].snapshot.as_ref().unwrap().ends_with(COMMIT));

    let phi: Repo = "microsoft/phi-1_5".parse().unwrap();
    // Another process downloads it.
    let locks = cache.join(".locks/models--microsoft--phi-1_5");
    fs::create_dir_all(&locks).unwrap();
    let lock = fs::File::create(locks.join("abc.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(pheye_hub::remove(cache, &phi), Err(Error::InUse { .. })));
    drop(lock);
    assert_eq!(pheye_hub::remove(cache, &phi).unwrap(), 10);
    assert!(matches!(pheye_hub::remove(cache, &phi), Err(Error::NotCached { .. })));
    assert!(!locks.exists() && other.exists() && cache.join("datasets--me--data").exists());
}
