//! Servers that never end a body or send almost nothing, and caches with missing files.

mod common;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{COMMIT, Drip, Rules, Server, git, hub_and_store, sha256};
use pheye_hub::{Error, Limits, Result};

const REPO: &str = "owner/name";

/// A hub with the single file `owner/name/FILE`.
fn dripping(file: &str, drip: Drip) -> Server {
    let drips = [(format!("{REPO}/{file}"), drip)].into();
    Server::start(Rules { drips, ..Rules::default() })
}

fn get(server: &Server, cache: &Path, file: &str, limits: &Limits) -> Result<Vec<u8>> {
    let hub = common::limited(&server.url, cache, false, limits.clone());
    let path = hub.snapshot(REPO.parse().unwrap()).get(file, &mut |_| ())?;
    Ok(fs::read(path).unwrap())
}

fn blobs(cache: &Path) -> usize {
    fs::read_dir(cache.join("models--owner--name/blobs")).unwrap().count()
}

#[test]
fn a_body_without_a_length_is_taken_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let endless = Drip::new(vec![7; 64 << 10], usize::MAX);
    let limits = Limits { small: 1 << 20, unsized_weights: 2 << 20, ..Limits::default() };
    for (file, limit) in [("config.json", "1048576"), ("model.safetensors", "2097152")] {
        let server = dripping(file, endless.clone());
        let error = get(&server, dir.path(), file, &limits).unwrap_err();
        assert!(matches!(error, Error::TooLarge { promised: None, .. }), "{error}");
        assert!(error.to_string().contains(file) && error.to_string().contains(limit), "{error}");
        assert_eq!((blobs(dir.path()), server.requests("GET")), (0, 1));
    }
    let short = Drip::new(b"{} ".to_vec(), 3);
    assert_eq!(
        get(&dripping("config.json", short), dir.path(), "config.json", &limits).unwrap(),
        b"{} {} {} "
    );
}

#[cfg(unix)]
#[test]
fn weights_of_unknown_length_leave_some_of_the_disk_free() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { reserve: u64::MAX, ..Limits::default() };
    let server = dripping("model.safetensors", Drip::new(vec![7; 1 << 10], usize::MAX));
    let error = get(&server, dir.path(), "model.safetensors", &limits).unwrap_err();
    assert!(matches!(error, Error::TooLarge { limit: 0, .. }), "{error}");
}

#[test]
fn a_small_file_that_is_promised_to_be_large_is_not_fetched() {
    let (hub, _store, large) = hub_and_store();
    hub.rules.lock().unwrap().small.insert("owner/name/tokenizer.json".to_owned(), vec![b' '; 3000]);
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { small: 2999, ..Limits::default() };
    let error = get(&hub, dir.path(), "tokenizer.json", &limits).unwrap_err();
    assert!(matches!(error, Error::TooLarge { promised: Some(3000), .. }), "{error}");
    assert_eq!(hub.requests("GET"), 0);
    // Weights of known size have no limit.
    assert!(get(&hub, dir.path(), "checkpoint.pt", &limits).unwrap() == large);
}

#[test]
fn a_drip_and_a_silence_count_as_cuts_and_end() {
    let limits = Limits { patience: Duration::from_millis(150), ..Limits::default() };
    for (pause, why) in
        [(Duration::from_millis(10), "less than 1000 bytes a second"), (Duration::from_secs(5), "")]
    {
        let dir = tempfile::tempdir().unwrap();
        let server = dripping("model.safetensors", Drip { pause, ..Drip::new(vec![7], 10_000) });
        let begun = Instant::now();
        let error = get(&server, dir.path(), "model.safetensors", &limits).unwrap_err();
        assert!(matches!(error, Error::Cut { .. }) && error.to_string().contains(why), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(15));
        assert_eq!(server.requests("GET"), 6);
    }
}

#[test]
fn bytes_between_cuts_are_no_progress_unless_they_are_many() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    store.rules.lock().unwrap().cuts = vec![1000; 100];
    let limits = Limits { progress: 1 << 20, ..Limits::default() };
    let error = get(&hub, dir.path(), "checkpoint.pt", &limits).unwrap_err();
    assert!(matches!(error, Error::Cut { done: 6000, .. }), "{error}");
    // If a thousand bytes count as progress, the download completes.
    store.rules.lock().unwrap().cuts = vec![1000; 30];
    let limits = Limits { progress: 1000, ..limits };
    assert!(get(&hub, dir.path(), "checkpoint.pt", &limits).unwrap() == large);
}

#[test]
fn checksums_in_capitals_are_compared() {
    let limits = Limits::default();
    let body = b"{}".to_vec();
    let sum = sha256(&body).to_uppercase();
    for etag in [format!("\"{sum}\""), format!("W/\"{sum}\""), sum.clone()] {
        let dir = tempfile::tempdir().unwrap();
        let server = dripping("config.json", Drip { etag: etag.clone(), ..Drip::new(body.clone(), 1) });
        assert_eq!(get(&server, dir.path(), "config.json", &limits).unwrap(), body);
        assert!(dir.path().join("models--owner--name/blobs").join(sha256(&body)).is_file());
        let dir = tempfile::tempdir().unwrap();
        let server = dripping("config.json", Drip { etag, ..Drip::new(b"[]".to_vec(), 1) });
        let error = get(&server, dir.path(), "config.json", &limits).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { expected, .. } if *expected == sha256(&body)), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_whose_contents_are_gone_is_told_offline_and_mended_online() {
    let (hub, _store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let root = dir.path().join("models--owner--name");
    for (file, sum, body) in
        [("checkpoint.pt", sha256(&large), &large), ("config.json", git(b"{}"), &b"{}".to_vec())]
    {
        get(&hub, dir.path(), file, &limits).unwrap();
        fs::remove_file(root.join("blobs").join(&sum)).unwrap();
        let offline = common::hub(&hub.url, dir.path(), true);
        let mut snapshot = offline.snapshot(REPO.parse().unwrap());
        for error in
            [snapshot.get(file, &mut |_| ()).unwrap_err(), snapshot.find(file, &mut |_| ()).unwrap_err()]
        {
            let text = error.to_string();
            assert!(
                matches!(error, Error::Gone { .. }) && text.contains(&sum) && text.contains(file),
                "{text}"
            );
            assert!(text.contains(COMMIT), "{text}");
        }
        assert!(get(&hub, dir.path(), file, &limits).unwrap() == *body);
    }
}
