//! Models by their name on the hub: a released repository whose backbones and tokenizer are in other
//! repositories, served from the loopback interface.
#![cfg(feature = "hub")]

mod common;
#[path = "../../hub/tests/common/mod.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Ended, golden, pheye, run, s, top};
use server::{Rules, Server, TOKEN, sha256};

const MODEL: &str = "someone/Pheye-tiny";

fn published() -> (Server, Server) {
    let folder = golden("level1");
    let mut config: serde_json::Value =
        serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["encoder"] = "someone/clip".into();
    config["decoder"] = "someone/phi".into();
    config["tokenizer"] = "someone/phi".into();
    let small = [
        (format!("{MODEL}/config.json"), serde_json::to_vec(&config).unwrap()),
        ("someone/clip/config.json".to_owned(), fs::read(folder.join("encoder/config.json")).unwrap()),
        ("someone/phi/config.json".to_owned(), fs::read(folder.join("decoder/config.json")).unwrap()),
        ("someone/phi/tokenizer.json".to_owned(), tokenizer()),
    ];
    let weights = fs::read(folder.join("checkpoint.pt")).unwrap();
    let path = format!("/{}?signature=private", sha256(&weights));
    let cut = vec![weights.len() / 3];
    let store =
        Server::start(Rules { contents: [(path, weights.clone())].into(), cuts: cut, ..Rules::default() });
    let hub = Server::start(Rules {
        small: small.into(),
        large: [(format!("{MODEL}/checkpoint.pt"), weights)].into(),
        store: store.url.clone(),
        ..Rules::default()
    });
    (hub, store)
}

/// A word-level tokenizer with fewer ids than the golden model has embeddings.
fn tokenizer() -> Vec<u8> {
    let words = ["<|endoftext|>", "<unk>", "what", "is", "this"];
    let vocab: serde_json::Map<_, _> =
        words.iter().enumerate().map(|(i, w)| ((*w).to_owned(), i.into())).collect();
    let end = serde_json::json!({"id": 0, "content": words[0], "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": true});
    let tokenizer = serde_json::json!({"version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [end], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}});
    serde_json::to_vec(&tokenizer).unwrap()
}

fn command(url: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = pheye(args);
    for name in
        ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN_PATH"]
    {
        command.env_remove(name);
    }
    command.env("HF_ENDPOINT", url).env("HF_HOME", home).env("HF_TOKEN", TOKEN).env("NO_PROXY", "127.0.0.1");
    command
}

fn ask(url: &str, home: &Path, model: &str, set: &[(&str, &str)]) -> Ended {
    let image = top().join("picture.png");
    let args = [
        "ask",
        s(&image),
        "what is this",
        "--model",
        model,
        "--json",
        "--max-new-tokens",
        "4",
        "--device",
        "cpu",
    ];
    let mut command = command(url, home, &args);
    command.envs(set.iter().copied());
    run(command)
}

#[test]
fn a_released_model_by_its_name() {
    /// The answer without the times, which differ.
    fn answer(ended: &Ended) -> &str {
        ended.out.split("\"seconds\"").next().unwrap_or_default()
    }
    let (hub, store) = published();
    let dir = tempfile::tempdir().unwrap();
    let first = ask(&hub.url, dir.path(), MODEL, &[]);
    assert_eq!(first.code, Some(0), "{first:#?}");
    assert!(first.out.contains("\"answer\""), "{first:#?}");
    assert!(first.err.contains("the connection was cut"), "{first:#?}");
    assert_eq!(store.requests("GET"), 2, "cut once, resumed once");
    assert!(dir.path().join("hub/models--someone--phi/refs/main").is_file());

    // Everything is cached now: no further request, also with an unreachable endpoint and in offline mode.
    let before = hub.seen.lock().unwrap().len();
    assert_eq!(answer(&ask(&hub.url, dir.path(), MODEL, &[])), answer(&first));
    assert_eq!(hub.seen.lock().unwrap().len(), before);
    assert_eq!(answer(&ask("http://127.0.0.1:9", dir.path(), MODEL, &[])), answer(&first));
    assert_eq!(
        answer(&ask("http://127.0.0.1:9", dir.path(), MODEL, &[("HF_HUB_OFFLINE", "1")])),
        answer(&first)
    );

    // A local folder in the released layout uses backbones and tokenizer from the cache as well.
    let commit = dir.path().join("hub/models--someone--Pheye-tiny/snapshots").join(server::COMMIT);
    assert_eq!(answer(&ask("http://127.0.0.1:9", dir.path(), s(&commit), &[])), answer(&first));

    let own = dir.path().join("own");
    let converted = run(command("http://127.0.0.1:9", dir.path(), &["convert", MODEL, s(&own)]));
    assert_eq!(converted.code, Some(0), "{converted:#?}");
    assert_eq!(answer(&ask("http://127.0.0.1:9", dir.path(), s(&own), &[])), answer(&first));
}

#[test]
fn what_cannot_be_had_is_said() {
    let (hub, _store) = published();
    let dir = tempfile::tempdir().unwrap();
    let refused = |url: &str, model: &str, set: &[(&str, &str)], parts: &[&str]| {
        let ended = ask(url, dir.path(), model, set);
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        for part in parts {
            assert!(ended.err.contains(part), "no `{part}` in {}", ended.err);
        }
        assert!(!ended.err.contains(TOKEN), "{}", ended.err);
    };
    refused(&hub.url, "someone/none", &[], &["someone/none", "not found"]);
    refused(&hub.url, "someone/phi", &[], &["someone/phi", "pheye.json"]);
    refused(&hub.url, MODEL, &[("HF_HUB_OFFLINE", "1")], &[MODEL, "HF_HUB_OFFLINE"]);
    refused("http://127.0.0.1:9", MODEL, &[], &["127.0.0.1:9", "HF_ENDPOINT"]);
    refused("nowhere", MODEL, &[], &["HF_ENDPOINT"]);
    hub.rules.lock().unwrap().token = Some("another".to_owned());
    refused(&hub.url, MODEL, &[], &["401", "HF_TOKEN"]);
}
