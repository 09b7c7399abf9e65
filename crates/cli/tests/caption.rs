//! `pheye caption`: killed at any moment and continued, it ends with the same bytes.

mod common;

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{ends, pheye, refuses, run, s, top};
use serde_json::Value;

/// A folder with `count` images in two folders, one of which is broken.
fn pictures(folder: &Path, count: usize) {
    fs::create_dir_all(folder.join("inner")).unwrap();
    let picture = image::open(top().join("picture.png")).unwrap();
    for i in 0..count {
        let name = if i % 3 == 0 { format!("inner/{i:03}.png") } else { format!("{i:03}.bmp") };
        // Pictures that differ.
        picture.crop_imm(0, 0, 64 - (i % 13) as u32, 64 - (i % 7) as u32).save(folder.join(name)).unwrap();
    }
    fs::write(folder.join("050.jpg"), "not a picture").unwrap();
    fs::write(folder.join("notes.txt"), "not a picture, and not called one").unwrap();
}

fn caption(folder: &Path, out: &Path) -> std::process::Command {
    let mut command = pheye(["caption", s(folder), "--out", s(out), "--batch", "3"]);
    command.args(["--prompt", "what color is the shape?", "--device", "cpu"]);
    command
}

#[test]
fn a_killed_run_ends_with_the_same_bytes() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("pictures");
    pictures(&folder, 80);
    let whole = temp.path().join("whole.jsonl");
    let ended = run(caption(&folder, &whole));
    // The broken picture is in the file, and the exit code says so.
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    assert!(ended.err.contains("1 of 81 pictures"), "{ended:#?}");
    let text = fs::read_to_string(&whole).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 81);
    assert!(rows.is_sorted_by_key(|row| row["image"].as_str().unwrap().to_owned()));
    assert_eq!(rows.iter().filter(|row| row["caption"] == "yellow").count(), 80, "{text}");
    let broken: Vec<&Value> = rows.iter().filter(|row| row.get("error").is_some()).collect();
    assert_eq!(broken.len(), 1);
    assert_eq!(broken[0]["image"], "050.jpg");

    // Killed when the file has reached each of ten lengths, one after the other.
    let out = temp.path().join("killed.jsonl");
    let mut kills = 0;
    for tenth in 1..=10 {
        let length = (text.len() * tenth / 11) as u64;
        let mut child = caption(&folder, &out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let patience = Instant::now() + Duration::from_secs(60);
        while fs::metadata(&out).map_or(0, |file| file.len()) < length {
            if child.try_wait().unwrap().is_some() || Instant::now() > patience {
                break;
            }
        }
        kills += usize::from(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        // A line that was being written when the machine stopped.
        let mut half = fs::read(&out).unwrap();
        half.extend_from_slice("{\"image\":\"caf\u{e9}".as_bytes().split_last().unwrap().1);
        fs::write(&out, half).unwrap();
    }
    assert!(kills >= 8, "only {kills} of ten were killed before they ended");
    assert_eq!(run(caption(&folder, &out)).code, Some(1));
    assert_eq!(fs::read_to_string(&out).unwrap(), text);
    // Once more there is nothing to do, and the same is said.
    let again = run(caption(&folder, &out));
    assert!(again.code == Some(1) && again.err.contains("1 of 81"), "{again:#?}");
    assert_eq!(fs::read_to_string(&out).unwrap(), text);
}

#[test]
fn what_is_there_is_not_mixed_with_something_else() {
    let temp = tempfile::tempdir().unwrap();
    let (folder, out) = (temp.path().join("pictures"), temp.path().join("captions.jsonl"));
    fs::create_dir(&folder).unwrap();
    fs::copy(top().join("picture.png"), folder.join("a.png")).unwrap();
    let base = ["caption", s(&folder), "--out", s(&out)];
    ends(0, base);
    let first = fs::read(&out).unwrap();
    refuses([&base[..], &["--prompt", "is it red?"]].concat(), &["another `prompt`", "--overwrite"]);
    refuses([&base[..], &["--max-new-tokens", "3"]].concat(), &["another `generation`"]);
    assert_eq!(fs::read(&out).unwrap(), first);
    ends(0, [&base[..], &["--prompt", "is it red?", "--overwrite"]].concat());
    let row: Value = serde_json::from_slice(&fs::read(&out).unwrap()).unwrap();
    assert_eq!(row["caption"], "no");
    // A file of someone else.
    let other = temp.path().join("other.jsonl");
    fs::write(&other, "mine\n").unwrap();
    refuses(["caption", s(&folder), "--out", s(&other)], &["other.jsonl", "--overwrite"]);
    assert_eq!(fs::read(&other).unwrap(), b"mine\n");
}
