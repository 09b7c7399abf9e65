//! Downloads from a loopback server that behaves like the hub and its store, or misbehaves.

mod common;

use std::fs;

use common::{COMMIT, Rules, Server, TOKEN, git, hub_and_store, sha256};
use pheye_hub::{Error, Progress};

const REPO: &str = "owner/name";

#[test]
fn a_file_lands_in_the_common_layout() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    let client = hub.hub(dir.path());
    let mut snapshot = client.snapshot(REPO.parse().unwrap());
    let mut last = None;
    let path = snapshot
        .get("checkpoint.pt", &mut |p| {
            if let Progress::Bytes { done, total, .. } = p {
                last = Some((done, total));
            }
        })
        .unwrap();
    assert_eq!(last, Some((large.len() as u64, Some(large.len() as u64))));
    let config = snapshot.get("config.json", &mut |_| ()).unwrap();
    let root = dir.path().join("models--owner--name");
    assert_eq!(path, root.join("snapshots").join(COMMIT).join("checkpoint.pt"));
    assert!(fs::read(&path).unwrap() == large && fs::read(&config).unwrap() == b"{}");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert!(root.join("blobs").join(sha256(&large)).is_file());
    #[cfg(unix)]
    assert_eq!(fs::read_link(&config).unwrap().to_str().unwrap(), format!("../../blobs/{}", git(b"{}")));
    assert_eq!(fs::read_dir(root.join("blobs")).unwrap().count(), 2, "nothing incomplete is left");

    // The token was sent to the hub and not to the store.
    let sent = |server: &Server| server.seen.lock().unwrap().iter().filter(|h| h.contains(TOKEN)).count();
    assert_eq!((sent(&hub), sent(&store)), (hub.seen.lock().unwrap().len(), 0));
    assert_eq!(store.requests("GET"), 1);

    // A cached file causes no request.
    let before = hub.seen.lock().unwrap().len();
    client.snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap();
    assert_eq!(hub.seen.lock().unwrap().len(), before);
}

#[test]
fn cut_connections_are_resumed() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    store.rules.lock().unwrap().cuts = vec![1_500_000, 0, 700_000];
    let mut resumed = 0;
    let path = hub
        .hub(dir.path())
        .snapshot(REPO.parse().unwrap())
        .get("checkpoint.pt", &mut |p| resumed += u32::from(matches!(p, Progress::Resumed { .. })))
        .unwrap();
    assert!(fs::read(path).unwrap() == large);
    assert_eq!(resumed, 3);
    let seen = store.seen.lock().unwrap();
    assert!(!seen[0].contains("Range") && !seen[0].contains("range"));
    let ranges: Vec<_> = seen[1..].iter().map(|h| h.to_ascii_lowercase()).collect();
    assert!(ranges[0].contains("range: bytes=1500000-") && ranges[2].contains("range: bytes=2200000-"));
}

#[test]
fn a_dead_download_goes_on_at_the_next_start() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    store.rules.lock().unwrap().cuts = [vec![1_000_000], vec![0; 20]].concat();
    let client = hub.hub(dir.path());
    let error = client.snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Cut { done: 1_000_000, .. }), "{error}");
    let part = dir.path().join("models--owner--name/blobs").join(format!("{}.incomplete", sha256(&large)));
    assert!(fs::read(&part).unwrap() == large[..1_000_000]);

    store.rules.lock().unwrap().cuts.clear();
    let mut first = None;
    let path = client
        .snapshot(REPO.parse().unwrap())
        .get("checkpoint.pt", &mut |p| {
            if let Progress::Bytes { done, .. } = p {
                first.get_or_insert(done);
            }
        })
        .unwrap();
    assert_eq!(first, Some(1_000_000));
    assert!(fs::read(path).unwrap() == large && !part.exists());
}

#[test]
fn a_server_without_ranges_starts_again() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    store.rules.lock().unwrap().cuts = vec![1_500_000];
    store.rules.lock().unwrap().no_ranges = true;
    let path = hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap();
    assert!(fs::read(path).unwrap() == large);
}

#[test]
fn corrupted_contents_are_deleted_and_reported() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    for body in store.rules.lock().unwrap().contents.values_mut() {
        body[3_000_000] ^= 1;
    }
    let client = hub.hub(dir.path());
    let get = || client.snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ());
    let error = get().unwrap_err();
    assert!(matches!(&error, Error::Corrupt { expected, .. } if *expected == sha256(&large)), "{error}");
    assert!(error.to_string().contains("checkpoint.pt"), "{error}");
    let blobs = dir.path().join("models--owner--name/blobs");
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 0);

    // A partial file with wrong contents is discarded, and the file is downloaded from its beginning.
    for body in store.rules.lock().unwrap().contents.values_mut() {
        body[3_000_000] ^= 1;
    }
    fs::write(blobs.join(format!("{}.incomplete", sha256(&large))), vec![7; 100_000]).unwrap();
    assert!(fs::read(get().unwrap()).unwrap() == large);

    // A body longer than reported.
    let dir = tempfile::tempdir().unwrap();
    for body in store.rules.lock().unwrap().contents.values_mut() {
        body.push(0);
    }
    let error =
        hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Corrupt { what: "its size", .. }), "{error}");
}

#[test]
fn small_files_are_checked_too() {
    let (hub, _store, _) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    // The size is correct, but the contents do not match the ETag.
    let etag = git(b"{}");
    let path = format!("/owner/name/resolve/{COMMIT}/config.json");
    hub.rules.lock().unwrap().contents.insert(path, b"[]".to_vec());
    let error =
        hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("config.json", &mut |_| ()).unwrap_err();
    assert!(matches!(&error, Error::Corrupt { expected, .. } if *expected == etag), "{error}");
}

#[test]
fn missing_repositories_and_files() {
    let (hub, _store, _) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    let client = hub.hub(dir.path());
    let error = client.snapshot("owner/other".parse().unwrap()).get("config.json", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::NoRepo { .. }) && error.to_string().contains("owner/other"), "{error}");

    let mut snapshot = client.snapshot(REPO.parse().unwrap());
    let error = snapshot.get("pheye.json", &mut |_| ()).unwrap_err();
    assert_eq!(error.to_string(), "owner/name has no file pheye.json");
    snapshot.get("config.json", &mut |_| ()).unwrap();
    assert_eq!(snapshot.find("tokenizer_config.json", &mut |_| ()).unwrap(), None);
    let before = hub.seen.lock().unwrap().len();
    assert_eq!(snapshot.find("tokenizer_config.json", &mut |_| ()).unwrap(), None);
    assert_eq!(hub.seen.lock().unwrap().len(), before, "it is remembered that there is none");

    let error = snapshot.get("../../escape", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::FileName { .. }));
}

#[test]
fn refused_access_and_the_token() {
    let (hub, _store, _) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    hub.rules.lock().unwrap().token = Some("another".to_owned());
    let get = || hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("config.json", &mut |_| ());
    let error = get().unwrap_err();
    assert!(matches!(error, Error::Denied { status: 401, .. }), "{error}");
    let shown = format!("{error} {error:?} {:?}", hub.hub(dir.path()).settings());
    assert!(shown.contains("HF_TOKEN") && !shown.contains(TOKEN), "{shown}");
    hub.rules.lock().unwrap().status = Some(403);
    assert!(matches!(get().unwrap_err(), Error::Denied { status: 403, .. }));
    hub.rules.lock().unwrap().status = Some(500);
    assert!(matches!(get().unwrap_err(), Error::Status { status: 500, .. }));
    hub.rules.lock().unwrap().status = None;
    hub.rules.lock().unwrap().token = Some(TOKEN.to_owned());
    get().unwrap();
}

#[test]
fn errors_keep_a_stores_signature_to_themselves() {
    let (hub, store, _) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    store.rules.lock().unwrap().status = Some(403);
    let error =
        hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(
        shown.contains(store.url.trim_start_matches("http://")) && !shown.contains("signature"),
        "{shown}"
    );
}

#[test]
fn nothing_listens() {
    let dir = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = common::hub(&format!("http://{closed}"), dir.path(), false);
    let error = client.snapshot(REPO.parse().unwrap()).get("config.json", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[test]
fn answers_of_something_else() {
    let page = Server::start(Rules { status: Some(200), ..Rules::default() });
    let dir = tempfile::tempdir().unwrap();
    let error =
        page.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("config.json", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn two_at_once_fetch_once() {
    let (hub, store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // File locks belong to open files, so threads behave like processes.
                let client = hub.hub(dir.path());
                let path = client.snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ()).unwrap();
                assert!(fs::read(path).unwrap() == large);
            });
        }
    });
    assert_eq!(store.requests("GET"), 1);
}

#[cfg(unix)]
#[test]
fn a_folder_that_cannot_be_written() {
    let (hub, _store, _) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = hub.hub(&file).snapshot(REPO.parse().unwrap()).get("config.json", &mut |_| ()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("file/"), "{error}");
}

/// The device /dev/full simulates a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let (hub, _store, large) = hub_and_store();
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("models--owner--name/blobs");
    fs::create_dir_all(&blobs).unwrap();
    let part = blobs.join(format!("{}.incomplete", sha256(&large)));
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = hub.hub(dir.path()).snapshot(REPO.parse().unwrap()).get("checkpoint.pt", &mut |_| ());
    let error = error.unwrap_err();
    assert!(std::error::Error::source(&error).is_some());
    let error = error.to_string();
    assert!(error.contains(".incomplete: cannot write; free some space"), "{error}");
}
