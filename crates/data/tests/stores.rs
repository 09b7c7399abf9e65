//! Containers of images: the same bytes from each, and an error that names the file for every damage.
//! `make_stores.py` writes the files.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use pheye_data::{Content, Error, Manifest, Mixture, Store};
use pheye_files::chain;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/stores").join(name)
}

/// Image `i` of `make_stores.py`.
fn image(i: usize) -> Vec<u8> {
    (0..50 + 9 * i).map(|j| ((7 * i + j) % 256) as u8).collect()
}

fn error<T>(result: Result<T, Error>) -> String {
    chain(&result.err().expect("an error"))
}

fn missing(store: &Store, name: &str) {
    let error = store.read(name).unwrap_err();
    assert!(matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound));
    assert!(error.to_string().contains(name), "{error}");
}

/// Eight threads read all files in different orders and get the same bytes.
fn read_at_once(store: &Store, images: &[(String, Vec<u8>)]) {
    std::thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for turn in 0..images.len() {
                    let (name, bytes) = &images[(turn * (2 * thread + 1) + thread) % images.len()];
                    assert!(&store.read(name).unwrap() == bytes, "{name}");
                }
            });
        }
    });
}

mod tar {
    use super::*;

    const LONG: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy/\
                        zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz.jpg";

    fn write(path: &Path, files: &[(&str, &[u8])]) {
        let mut tar = ::tar::Builder::new(fs::File::create(path).unwrap());
        for (name, bytes) in files {
            let mut header = ::tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.finish().unwrap();
    }

    #[test]
    fn forms_of_python() {
        for form in ["gnu", "pax", "ustar"] {
            let store = Store::open(data(&format!("{form}.tar"))).unwrap();
            let mut expected = vec![
                ("000.jpg", image(0)),
                ("000.txt", b"two cats".to_vec()),
                ("folder/001.seg.PNG", image(1)),
                ("folder/001.json", br#"{"caption": "a dog"}"#.to_vec()),
                (LONG, image(2)),
                ("../up.jpg", image(3)),
                ("/etc/absolute.jpg", image(4)),
                ("empty.txt", Vec::new()),
                ("manifest.jsonl", b"{\"image\": \"000.jpg\", \"caption\": \"two cats\"}\n".to_vec()),
                ("naïve.jpg", image(5)),
            ];
            expected.truncate(if form == "ustar" { 9 } else { 10 });
            let names: Vec<_> = expected.iter().map(|(name, _)| name.to_string()).collect();
            assert_eq!(store.names().unwrap(), names, "{form}");
            let images: Vec<_> = expected.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
            read_at_once(&store, &images);
            ["link.jpg", "folder", "001.seg.PNG", "up.jpg"].iter().for_each(|name| missing(&store, name));
        }
    }

    #[test]
    fn samples_are_files_with_one_stem() {
        let Store::Tar(tar) = Store::open(data("gnu.tar")).unwrap() else { panic!() };
        let samples = tar.samples();
        let keys: Vec<_> = samples.iter().map(|sample| sample.key.as_str()).collect();
        let long = LONG.strip_suffix(".jpg").unwrap();
        let want = ["000", "folder/001", long, "../up", "/etc/absolute", "empty", "manifest", "naïve"];
        assert_eq!(keys, want);
        assert_eq!((samples[0].image(), samples[0].member("txt")), (Some("000.jpg"), Some("000.txt")));
        let pair = |extension: &str, name: &str| (extension.to_owned(), name.to_owned());
        let second = [pair("seg.png", "folder/001.seg.PNG"), pair("json", "folder/001.json")];
        assert_eq!(samples[1].members, second);
        assert_eq!(samples[1].image(), None);
    }

    #[test]
    fn several_shards() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for shard in 0..3 {
            let name = format!("{shard}.jpg");
            write(
                &at(&format!("s-0{shard}.tar")),
                &[(&name, &image(shard)), (&format!("{shard}.txt"), b"t")],
            );
        }
        let (braces, folder) = (Store::open(at("s-{00..02}.tar")).unwrap(), Store::open(dir.path()).unwrap());
        assert_eq!(braces.names().unwrap(), ["0.jpg", "0.txt", "1.jpg", "1.txt", "2.jpg", "2.txt"]);
        assert_eq!(folder.names().unwrap(), braces.names().unwrap());
        assert_eq!(folder.read("2.jpg").unwrap(), image(2));
        assert!(error(folder.read("9.jpg")).contains(": 9.jpg: cannot be read"));
        let two = Store::open(at("s-{01..02}.tar")).unwrap();
        assert_eq!(two.names().unwrap().len(), 4);
        assert!(error(Store::open(at("s-{01..03}.tar"))).contains("s-03.tar: cannot be read"));
        // Shards that count from zero each.
        write(&at("s-03.tar"), &[("0.jpg", &image(9))]);
        let all = Store::open(at("s-{00..03}.tar")).unwrap();
        missing(&all, "0.jpg");
        assert_eq!(all.read("s-00.tar/0.jpg").unwrap(), image(0));
        assert_eq!(all.read("s-03.tar/0.jpg").unwrap(), image(9));
        let Store::Tar(tar) = &all else { panic!() };
        assert_eq!(tar.samples().len(), 4);
    }

    #[test]
    fn more_shards_than_are_kept_open() {
        let dir = tempfile::tempdir().unwrap();
        for shard in 0..300 {
            let path = dir.path().join(format!("{shard:03}.tar"));
            write(&path, &[(&format!("{shard}.jpg"), &image(shard))]);
        }
        let store = Store::open(dir.path().join("{000..299}.tar")).unwrap();
        let images: Vec<_> = [0, 255, 256, 299].map(|i| (format!("{i}.jpg"), image(i))).into();
        read_at_once(&store, &images);
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let files: [(&str, &[u8]); 2] = [("0.jpg", &image(0)), ("1.jpg", &image(100))];
        write(&path, &files);
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            match Store::open(&path) {
                // One block of zeros is enough of an end.
                Ok(_) => assert!(end >= whole.len() - 512, "cut to {end}"),
                Err(error) => {
                    let error = chain(&error);
                    assert!(error.contains("a.tar: ") && end < whole.len() - 512, "{end}: {error}");
                }
            }
        }
        fs::write(&path, &whole[..700]).unwrap();
        assert!(error(Store::open(&path)).contains("cut off"), "{}", error(Store::open(&path)));
        for at in 0..512 {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x55;
            fs::write(&path, bytes).unwrap();
            let error = error(Store::open(&path));
            assert!(error.contains("a.tar: not a tar file that this program reads: "), "{at}: {error}");
        }
        write(&path, &[("0.jpg", b"1"), ("./0.jpg", b"2")]);
        assert!(error(Store::open(&path)).contains("a.tar: holds two files named 0.jpg"));
        fs::write(&path, b"\x1f\x8b\x08\0\0\0\0\0").unwrap();
        assert!(error(Store::open(&path)).contains("it is compressed with gzip; unpack it first"));
    }

    /// A long name of gigabytes, and a file of more than 512 MiB.
    #[test]
    fn claims_are_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let header = |kind: u8, size: u64| {
            let mut header = ::tar::Header::new_gnu();
            header.set_path("big.jpg").unwrap();
            header.set_entry_type(::tar::EntryType::new(kind));
            header.set_size(size);
            header.set_cksum();
            header.as_bytes().to_vec()
        };
        for (kind, size, reason) in
            [(b'L', 5 << 30, "header of more than 1 MiB"), (b'x', 5 << 30, "header of more than 1 MiB")]
        {
            let mut file = fs::File::create(&path).unwrap();
            file.write_all(&header(kind, size)).unwrap();
            file.set_len((5 << 30) + 4096).unwrap();
            assert!(error(Store::open(&path)).contains(reason), "{}", error(Store::open(&path)));
        }
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(&header(b'0', 600 << 20)).unwrap();
        file.set_len((600 << 20) + 4096).unwrap();
        let store = Store::open(&path).unwrap();
        let error = error(store.read("big.jpg"));
        assert!(error.contains("a.tar: big.jpg: ") && error.contains("limit of 536870912"), "{error}");
    }
}

mod base64_json {
    use super::*;

    fn open(text: impl AsRef<[u8]>) -> Result<Store, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LA.json");
        fs::write(&path, text).unwrap();
        Store::open(path)
    }

    #[test]
    fn both_alphabets_with_and_without_padding() {
        let engines = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD];
        let images: Vec<_> = (0..40).map(|i| (format!("LA_IMG_{i:012}"), image(i))).collect();
        let pairs = images.iter().enumerate().map(|(i, (name, bytes))| (name, engines[i % 4].encode(bytes)));
        let compact: Vec<_> = pairs.clone().map(|(name, text)| format!("\"{name}\":\"{text}\"")).collect();
        let spread: Vec<_> = pairs.map(|(name, text)| format!("\n  \"{name}\" :\t\"{text}\"\r\n")).collect();
        for json in [format!("{{{}}}", compact.join(",")), format!("\u{feff} {{{}}}\n", spread.join(","))] {
            let store = open(json).unwrap();
            assert_eq!(
                store.names().unwrap(),
                images.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
            );
            read_at_once(&store, &images);
            missing(&store, "LA_IMG_9");
        }
    }

    /// Larger than the buffer of the pass.
    #[test]
    fn values_of_megabytes_and_escaped_names() {
        let long: Vec<u8> = (0..3_000_001u32).map(|i| (i % 251) as u8).collect();
        let json = format!(r#"{{"a\"\\": "{}", "\u00e9": "AAAA", "": "/-+_"}}"#, STANDARD.encode(&long));
        let store = open(json).unwrap();
        assert_eq!(store.names().unwrap(), ["a\"\\", "é", ""]);
        assert_eq!(store.read("a\"\\").unwrap(), long);
        assert_eq!(store.read("").unwrap(), [0xFF, 0xEF, 0xBF]);
        assert_eq!(open("{ }").unwrap().names().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("{{\"{}\": \"\"}}", "k".repeat(5000));
        for (json, why) in [
            ("", "byte 0: an object, `{\"NAME\": \"BASE64\", …}`, is wanted, this is the end of the file"),
            ("[1]", "byte 0: an object"),
            (r#"{"a": 1}"#, "byte 6: a string of base64 as the value of `a` is wanted, this is `1`"),
            (r#"{"a": {"b": ""}}"#, "a string of base64 as the value of `a` is wanted, this is `{`"),
            (r#"{"a" "b"}"#, "`:` after a name is wanted"),
            (r#"{"a": "b" "c""#, "`,` or `}` after a value is wanted"),
            (r#"{"a": "b",}"#, "the name of an image in quotes is wanted, this is `}`"),
            (r#"{"a": "b"} x"#, "nothing after the object is wanted, this is `x`"),
            (r#"{"a": "b\/"}"#, "byte 8: `\\` in the value of `a`"),
            (r#"{"a": "bcd"#, "cut off after 10 bytes, in the value of `a`"),
            (r#"{"a": "b", "#, "this is the end of the file"),
            (r#"{"\x": ""}"#, "byte 2: a name: invalid escape"),
            (r#"{"ab"#, "byte 2: a name does not end within"),
            (&long, "byte 2: a name does not end within 4096 bytes"),
        ] {
            let error = error(open(json));
            let start = "LA.json: not a base64 JSON file that this program reads: ";
            assert!(error.contains(start) && error.contains(why), "{json}: {error}");
        }
        assert!(error(open(r#"{"a": "", "b": "", "a": ""}"#)).contains("holds two files named a"));
        for text in ["AA=A", "AA A", "A", "A\u{e9}AA", "AAA\n"] {
            let store = open(format!("{{\"a\": \"{text}\"}}")).unwrap();
            let error = error(store.read("a"));
            assert!(error.contains("LA.json: a: cannot be read: it is not base64: "), "{text}: {error}");
        }
    }
}

#[cfg(feature = "parquet")]
mod parquet {
    use super::*;
    use pheye_data::store::parquet::{Parquet, Row};

    fn parquet(store: &Store) -> &Parquet {
        match store {
            Store::Parquet(parquet) => parquet,
            _ => panic!("not Parquet"),
        }
    }

    #[test]
    fn mimic_it_of_pandas_in_two_parts() {
        let images: Vec<_> = (0..33).map(|i| (format!("LA_IMG_{i:012}"), image(i))).collect();
        for path in ["mimic", "mimic/LA-{00000..00001}-of-00002.parquet"] {
            let store = Store::open(data(path)).unwrap();
            assert_eq!(
                store.names().unwrap(),
                images.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()
            );
            read_at_once(&store, &images);
            missing(&store, "LA_IMG_9");
        }
        let one = Store::open(data("mimic/LA-00001-of-00002.parquet")).unwrap();
        assert_eq!(one.read("LA_IMG_000000000032").unwrap(), image(32));
        missing(&one, "LA_IMG_000000000000");
    }

    /// With and without an index of pages, with and without dictionaries, pages of both versions, three
    /// codecs.
    #[test]
    fn images_and_texts_of_hugging_face() {
        for name in ["hf_index.parquet", "hf_dictionary.parquet"] {
            let store = Store::open(data(name)).unwrap();
            let table = parquet(&store);
            // A null path is no name.
            assert_eq!((table.rows(), table.name_of(7), table.has_images()), (40, "7".into(), true));
            let columns: Vec<_> = table.columns().collect();
            assert_eq!(columns, ["question", "answer", "image.path", "conversations"]);
            let text = |text: String| Some(text);
            for i in 0..40 {
                let texts = vec![
                    text(format!("what is {i}?")),
                    text(format!("it is {i}")).filter(|_| i != 5),
                    text(format!("{i}.jpg")).filter(|_| i != 7),
                    text(format!(r#"[{{"from": "human", "value": "\u00e9 {i}"}}]"#)),
                ];
                let bytes = Some(image(i)).filter(|_| i != 7);
                assert_eq!(table.row(i as u64).unwrap(), Row { image: bytes, texts }, "{name}, row {i}");
            }
            let images: Vec<_> = (8..40).map(|i| (i.to_string(), image(i))).collect();
            read_at_once(&store, &images);
            assert!(error(store.read("7")).contains(&format!("{name}: 7: ")));
            ["40", "07", "-1", "8.jpg"].iter().for_each(|name| missing(&store, name));
            assert!(error(table.row(40)).contains("row 40 of 40"));
        }
    }

    #[test]
    fn columns_of_texts() {
        for name in ["hf_index.parquet", "hf_dictionary.parquet", "texts.parquet", "plain.parquet"] {
            let store = Store::open(data(name)).unwrap();
            let (table, mut seen) = (parquet(&store), Vec::new());
            let columns: Vec<_> = table.columns().map(str::to_owned).collect();
            let columns: Vec<_> = columns.iter().map(String::as_str).rev().collect();
            let all = table.texts(&columns, |row, texts| {
                assert_eq!(row, seen.len() as u64);
                seen.push(texts.to_vec());
                Ok(row < 38)
            });
            all.unwrap();
            assert_eq!(seen.len(), 39, "{name}");
            for (row, texts) in seen.iter_mut().enumerate() {
                texts.reverse();
                assert_eq!(*texts, table.row(row as u64).unwrap().texts);
            }
            let error = error(table.texts(&["none"], |_, _| Ok(true)));
            assert!(error.contains(name) && error.contains("no column of text `none`; it has "), "{error}");
        }
        let store = Store::open(data("texts.parquet")).unwrap();
        assert!(!parquet(&store).has_images() && store.names().unwrap().is_empty());
        assert_eq!(parquet(&store).columns().collect::<Vec<_>>(), ["image", "text"]);
        assert!(error(store.read("3")).contains("texts.parquet: 3: "));
        let store = Store::open(data("plain.parquet")).unwrap();
        let images: Vec<_> = (0..40).map(|i| (i.to_string(), image(i))).collect();
        read_at_once(&store, &images);
    }

    /// Every prefix, and many wrong bytes: an error that names the file, or the right number of rows.
    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.parquet");
        let whole = fs::read(data("mimic/LA-00000-of-00002.parquet")).unwrap();
        for end in (0..whole.len()).step_by(23) {
            fs::write(&path, &whole[..end]).unwrap();
            let error = error(Store::open(&path));
            assert!(error.contains("a.parquet: not a Parquet file that this program reads: "), "{error}");
        }
        for at in (0..whole.len()).step_by(11) {
            for value in [0, 0xFF, whole[at] ^ 1] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                fs::write(&path, bytes).unwrap();
                let tried = Store::open(&path).and_then(|store| {
                    store.names()?.iter().take(3).try_for_each(|name| store.read(name).map(drop))
                });
                if let Err(error) = tried {
                    assert!(chain(&error).contains("a.parquet: "), "{at}: {error}");
                }
            }
        }
        let folder = dir.path().join("both");
        fs::create_dir(&folder).unwrap();
        fs::copy(data("mimic/LA-00000-of-00002.parquet"), folder.join("0.parquet")).unwrap();
        fs::copy(data("plain.parquet"), folder.join("1.parquet")).unwrap();
        let error_of_columns = error(Store::open(&folder));
        assert!(
            error_of_columns.contains("1.parquet: ")
                && error_of_columns.contains("does not have the columns of")
        );
        fs::copy(data("mimic/LA-00000-of-00002.parquet"), folder.join("1.parquet")).unwrap();
        assert!(error(Store::open(&folder)).contains("holds two files named LA_IMG_000000000000"));
    }
}

#[test]
fn names_of_a_folder_and_a_zip() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.jpg", "a/c.jpg", "a/b/d.jpg", "manifest.jsonl"] {
        let path = dir.path().join("files").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
    let store = Store::open(dir.path().join("files")).unwrap();
    assert_eq!(store.names().unwrap(), ["a/b/d.jpg", "a/c.jpg", "b.jpg", "manifest.jsonl"]);
    let zip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/easy-vqa/test.zip");
    let store = Store::open(zip).unwrap();
    let names = store.names().unwrap();
    assert!(
        names.contains(&"manifest.jsonl".to_owned()) && names.iter().all(|name| store.read(name).is_ok())
    );
}

/// A resumed run must notice other images.
#[test]
fn fingerprints_follow_the_contents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("LA.json");
    let prints = |text: &str| {
        fs::write(&path, format!("{{\"a\": \"{text}\"}}")).unwrap();
        let lines = dir.path().join("m.jsonl");
        fs::write(&lines, "{\"image\": \"a\", \"caption\": \"c\"}\n").unwrap();
        let mut manifest = Manifest::open(&lines).unwrap();
        manifest.store = Store::open(&path).unwrap();
        Mixture::new(vec![manifest], None, Content::Captions, 0).unwrap().prints().unwrap()
    };
    let before = prints("AAAA");
    assert_eq!(prints("AAAA"), before);
    assert_ne!(prints("AAAB"), before);
    assert_ne!(before, [0]);
}
