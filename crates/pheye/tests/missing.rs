//! Models that cannot be found: the error names what is missing, and suggests what exists.
#![cfg(feature = "hub")]

use std::error::Error as _;
use std::fs;
use std::path::{Path, PathBuf};

use pheye::hub::{Client, Settings, locate};
use pheye::{Error, ModelFiles};

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// An offline client with a cache that contains these names.
fn client(cache: &Path, names: &[String]) -> Client {
    for name in names {
        fs::create_dir_all(cache.join(format!("models--{}/snapshots/0", name.replace('/', "--")))).unwrap();
    }
    let cache = cache.to_str().unwrap().to_owned();
    let var = |name: &str| match name {
        "HF_HUB_CACHE" => Some(cache.clone()),
        "HF_HUB_OFFLINE" => Some("1".to_owned()),
        _ => None,
    };
    Client::new(Settings::from_vars(var, None).unwrap())
}

fn fault(hub: &Client, model: &str) -> Error {
    locate(hub, model, &mut |_| ()).unwrap_err()
}

#[test]
fn a_folder_or_name_that_is_not_there() {
    let hub = client(&folder("missing-two"), &["me/nano".to_owned(), "you/large".to_owned()]);
    let error = fault(&hub, "no/such/folder");
    let expected = "there is no folder no/such/folder, and a name on the hub has the form OWNER/NAME; hub names in the cache: me/nano, \
         you/large";
    assert_eq!(error.to_string(), expected);
    let error = fault(&hub, "me/nanno");
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    assert!(
        error.to_string().starts_with("there is no folder me/nanno, and no model of this name"),
        "{error}"
    );
    assert!(error.to_string().ends_with("hub names in the cache: me/nano, you/large"), "{error}");
    assert!(error.source().unwrap().to_string().contains("HF_HUB_OFFLINE"));

    let many: Vec<String> = (10..25).map(|i| format!("me/m{i}")).collect();
    let hub = client(&folder("missing-many"), &many);
    assert!(fault(&hub, "a/b/c").to_string().ends_with("me/m18, me/m19 and 5 more"));
    let hub = client(&folder("missing-none"), &[]);
    assert!(fault(&hub, "a/b/c\u{1b}").to_string().starts_with("there is no folder a/b/c\\u{1b},"));
}

#[test]
fn an_address_is_no_name() {
    let hub = client(&folder("missing-address"), &[]);
    for address in [
        "https://huggingface.co/me/nano",
        "https://huggingface.co/me/nano/tree/main",
        "http://mirror:80/me/nano?x=1",
        "huggingface.co/me/nano",
        "hf.co/me/nano/",
        "hf://me/nano",
    ] {
        let error = fault(&hub, address).to_string();
        assert!(error.ends_with("; a model of the hub is given as OWNER/NAME, here me/nano"), "{error}");
    }
    assert!(!fault(&hub, "https://huggingface.co/nano").to_string().contains(", here "));
}

#[cfg(unix)]
#[test]
fn links_to_nothing_are_told() {
    use std::os::unix::fs::symlink;

    let top = folder("missing-links");
    let hub = client(&top.join("cache"), &[]);
    let dangles = |error: Error, link: &Path| {
        let expected = format!("{} is a link to gone, which does not exist", link.display());
        assert_eq!(error.to_string(), expected);
    };
    let link = top.join("model");
    symlink("gone", &link).unwrap();
    dangles(fault(&hub, link.to_str().unwrap()), &link);
    dangles(ModelFiles::folder(&link).check().unwrap_err(), &link);
    fs::remove_file(&link).unwrap();

    // A link as the weights, a backbone, and a file of a backbone.
    fs::create_dir_all(link.join("text")).unwrap();
    fs::write(link.join("config.json"), r#"{"encoder": "vision", "decoder": "text"}"#).unwrap();
    let model = link.to_str().unwrap().to_owned();
    for file in ["checkpoint.pt", "vision", "text/model.safetensors", "text/config.json"] {
        symlink("gone", link.join(file)).unwrap();
        dangles(fault(&hub, &model), &link.join(file));
        fs::remove_file(link.join(file)).unwrap();
    }
    ModelFiles::folder(&link).check().unwrap();
}

#[cfg(feature = "ask")]
#[test]
fn loading_says_that_there_is_no_folder() {
    let error = pheye::Assistant::load("no/such/folder".as_ref(), Default::default()).unwrap_err();
    assert!(error.to_string().starts_with("there is no folder no/such/folder"), "{error}");
}
