//! Generates Rust structs from the kernels' parameter structs, so that both have the same names, order and
//! types of fields.
//!
//! The parser supports pointers, 32- and 64-bit numbers, other such structs, and arrays of these. `const T*`
//! becomes `In`, the address of a region that is read, and `T*` becomes `Out`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::jobs::{self, Source};

/// A parameter struct with its C++ layout.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Struct {
    pub name: String,
    /// The file that defines it.
    pub file: PathBuf,
    /// Whether it is a template over one type. Its fields have the type only behind pointers, so the layout
    /// does not depend on it.
    template: bool,
    /// Whether it is the parameter struct of a kernel, not only part of one.
    taken: bool,
    fields: Vec<Field>,
    size: usize,
    align: usize,
}

#[derive(Debug, Clone, PartialEq)]
struct Field {
    name: String,
    kind: Kind,
    /// The number of elements of an array.
    length: Option<usize>,
    offset: usize,
    size: usize,
    /// The declared type, and the comment of the source.
    doc: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    In,
    Out,
    Number(&'static str),
    Struct(String),
}

/// A source or header: its path, its text, and its text with comments replaced by spaces.
struct File {
    path: PathBuf,
    text: String,
    code: String,
}

/// All parameter structs of the kernels in `sources`, each after the structs that it contains.
///
/// # Errors
/// Returns a message that names file, struct and field if a struct is not found or not supported, or if two
/// files define different structs of the same name.
pub(crate) fn of(sources: &[Source], includes: &[PathBuf]) -> Result<Vec<Struct>, String> {
    let mut all = Vec::new();
    for source in sources {
        let closure = jobs::closure(&source.path, includes)?;
        let file = |(path, text): (PathBuf, String)| File { code: without_comments(&text), path, text };
        let files: Vec<File> = closure.into_iter().map(file).collect();
        for file in &files {
            for name in taken(&file.code) {
                find(&name, &files, &mut all)
                    .map_err(|why| format!("{}: parameters `{name}`: {why}", file.path.display()))?;
                all.iter_mut().filter(|item| item.name == name).for_each(|item| item.taken = true);
            }
        }
    }
    Ok(all)
}

/// The names of the parameter structs in the `KERNEL`s of a file, without template arguments.
fn taken(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, word) in code.match_indices("KERNEL(") {
        let before = code[..at].trim_end_matches([' ', '\t']);
        let part_of_a_name = code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        if part_of_a_name || before.ends_with("#define") {
            continue;
        }
        let Some((_, rest)) = code[at + word.len()..].split_once(',') else { continue };
        let name = rest.trim_start().split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).next();
        names.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
    }
    names
}

/// Adds the struct `name` and those it contains to `all`, and returns its size and alignment in bytes.
fn find(name: &str, files: &[File], all: &mut Vec<Struct>) -> Result<(usize, usize), String> {
    let (file, template, body) = files
        .iter()
        .find_map(|file| definition(&file.code, name).map(|(template, body)| (file, template, body)))
        .ok_or_else(|| format!("no struct `{name}` is in the file or in what it includes"))?;
    let here = |why: String| format!("struct `{name}` in {}: {why}", file.path.display());
    if let Some(known) = all.iter().find(|item| item.name == name) {
        return match known.file == file.path {
            true => Ok((known.size, known.align)),
            false => Err(here(format!("{} defines another struct of this name", known.file.display()))),
        };
    }
    let mut item = Struct {
        name: name.to_owned(),
        file: file.path.clone(),
        template,
        taken: false,
        fields: Vec::new(),
        size: 0,
        align: 1,
    };
    let mut start = body.start;
    for statement in file.code[body.clone()].split(';') {
        let end = start + statement.len();
        let doc = comment(&file.text, start, end);
        for (kind, declared, field, length) in declared(statement, files).map_err(here)? {
            let (size, align) = match &kind {
                Kind::In | Kind::Out => {
                    // A pointer to a parameter struct, which the host stores in device memory, needs that
                    // struct in Rust too. Other pointers are to elements.
                    let pointee = declared.trim_start_matches("const ").trim_end_matches('*');
                    let mut with = all.clone();
                    if find(pointee, files, &mut with).is_ok() {
                        *all = with;
                    }
                    (8, 8)
                }
                Kind::Number(rust) => {
                    (if rust.ends_with("64") { 8 } else { 4 }, if rust.ends_with("64") { 8 } else { 4 })
                }
                Kind::Struct(inner) => find(inner, files, all).map_err(here)?,
            };
            let size = size * length.unwrap_or(1);
            let offset = item.size.next_multiple_of(align);
            (item.size, item.align) = (offset + size, item.align.max(align));
            let doc = format!("`{declared}`{}{doc}", if doc.is_empty() { "" } else { ": " });
            item.fields.push(Field { name: field, kind, length, offset, size, doc });
        }
        start = end + 1;
    }
    if item.fields.is_empty() {
        return Err(here("it has no fields".to_owned()));
    }
    item.size = item.size.next_multiple_of(item.align);
    let layout = (item.size, item.align);
    all.push(item);
    Ok(layout)
}

/// Whether the struct `name` is a template, and the range of its body.
fn definition(code: &str, name: &str) -> Option<(bool, std::ops::Range<usize>)> {
    let heads = code.match_indices("struct ").filter(|(at, word)| {
        let rest = code[at + word.len()..].trim_start();
        rest.strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with('{'))
    });
    let at = heads.map(|(at, _)| at).next()?;
    let before = code[..at].trim_end();
    let template = before.ends_with('>')
        && before.rfind("template").is_some_and(|start| !before[start..].contains([';', '}']));
    let open = at + code[at..].find('{')?;
    let mut depth = 0;
    for (i, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 1 => return Some((template, open + 1..open + i)),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The kind, declared type, name and array length of a field.
type Declared = (Kind, String, String, Option<usize>);

fn declared(statement: &str, files: &[File]) -> Result<Vec<Declared>, String> {
    let text = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let odd = || {
        format!(
            "`{text}` is not understood; a parameter may be a pointer, a number of 32 or 64 bits, a struct of these, or an array"
        )
    };
    if text.contains(['(', '{', '=', '&', ':']) || text.contains("alignas") {
        return Err(odd());
    }
    let (constant, rest) = text.strip_prefix("const ").map_or((false, text.as_str()), |rest| (true, rest));
    let (base, names) = match rest.split_once('*') {
        Some((base, names)) => (base.trim(), names),
        None => {
            // The type is everything but the last word before the first comma or bracket.
            let first = rest.find([',', '[']).unwrap_or(rest.len());
            let space = rest[..first].trim_end().rfind(' ').ok_or_else(odd)?;
            (rest[..space].trim(), &rest[space..])
        }
    };
    let pointer = rest.contains('*');
    let kind = match (pointer, constant) {
        (true, true) => Kind::In,
        (true, false) => Kind::Out,
        (false, _) => number(base).map_or_else(
            || Kind::Struct(base.split('<').next().unwrap_or(base).trim().to_owned()),
            Kind::Number,
        ),
    };
    let mut fields = Vec::new();
    for (i, name) in names.split(',').enumerate() {
        // In `T* a, b`, b is not a pointer.
        let name = match (pointer, name.trim().strip_prefix('*')) {
            (true, Some(name)) if i > 0 => name,
            (_, None) if i == 0 || !pointer => name,
            _ => return Err(odd()),
        };
        let (name, length) = match name.split_once('[') {
            Some((name, rest)) => {
                let inside = rest.strip_suffix(']').ok_or_else(odd)?.trim();
                (name.trim(), Some(length(inside, files)?))
            }
            None => (name.trim(), None),
        };
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') || name.is_empty() {
            return Err(odd());
        }
        let shown = if pointer {
            format!("{}{base}*", if constant { "const " } else { "" })
        } else {
            base.to_owned()
        };
        fields.push((kind.clone(), shown, name.to_owned(), length));
    }
    Ok(fields)
}

/// The Rust type of a C++ number.
fn number(base: &str) -> Option<&'static str> {
    Some(match base {
        "int" | "int32_t" => "i32",
        "unsigned" | "unsigned int" | "uint32_t" => "u32",
        "int64_t" | "long long" => "i64",
        "uint64_t" | "unsigned long long" | "size_t" => "u64",
        "float" => "f32",
        "double" => "f64",
        _ => return None,
    })
}

/// The length of an array: an integer, or the name of an integer constant.
fn length(text: &str, files: &[File]) -> Result<usize, String> {
    let constant = |code: &str| {
        let value = |after: &str, end: char| {
            let (_, rest) = code.split_once(after)?;
            rest.split(end).next()?.trim().parse().ok()
        };
        ["int", "unsigned"]
            .iter()
            .find_map(|kind| value(&format!("constexpr {kind} {text} ="), ';'))
            .or_else(|| value(&format!("#define {text} "), '\n'))
    };
    let found = text.parse().ok().or_else(|| files.iter().find_map(|file| constant(&file.code)));
    found.filter(|length| *length > 0).ok_or_else(|| {
        format!("the length `{text}` of an array is neither an integer nor an integer constant (`constexpr int {text} = 8;`)")
    })
}

/// The comments of the source on the statement `start..end`: inside it, and after its semicolon.
fn comment(text: &str, start: usize, end: usize) -> String {
    let own = text[start..end].lines().enumerate().filter(|(i, _)| *i > 0).map(|(_, line)| line);
    let behind = text[end..].lines().next().unwrap_or("");
    let said = own.chain([behind]).filter_map(|line| Some(line.split_once("//")?.1.trim()));
    said.collect::<Vec<_>>().join(" ")
}

/// `text` with comments replaced by spaces; all other bytes keep their positions.
fn without_comments(text: &str) -> String {
    let mut code = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let end = match &bytes[i..] {
            [b'/', b'/', ..] => text[i..].find('\n').map_or(bytes.len(), |n| i + n),
            [b'/', b'*', ..] => text[i..].find("*/").map_or(bytes.len(), |n| i + n + 2),
            _ => {
                code.push(bytes[i]);
                i += 1;
                continue;
            }
        };
        code.extend(bytes[i..end].iter().map(|b| if *b == b'\n' { b'\n' } else { b' ' }));
        i = end;
    }
    String::from_utf8_lossy(&code).into_owned()
}

impl Struct {
    /// Static assertions with which a C++ compiler checks the layout.
    pub(crate) fn asserts(&self) -> String {
        let name = format!("{}{}", self.name, if self.template { "<float>" } else { "" });
        let mut text = format!("static_assert(sizeof({name}) == {}, \"layout\");\n", self.size);
        for Field { name: field, offset, .. } in &self.fields {
            text.push_str(&format!("static_assert(offsetof({name}, {field}) == {offset}, \"layout\");\n"));
        }
        text
    }
}

/// The code of the module `params`.
pub(crate) fn text(structs: &[Struct]) -> String {
    let mut text = String::from(
        "/// The parameter structs of this crate's kernels, with fields in the order of the source.\npub mod params {\n",
    );
    for item in structs {
        // Writing to a String does not fail.
        let _ = write_struct(&mut text, item);
    }
    text.push_str("}\n");
    text
}

fn write_struct(text: &mut String, item: &Struct) -> std::fmt::Result {
    let Struct { name, file, fields, size, .. } = item;
    let file = file.file_name().map(Path::new).unwrap_or(file).display();
    writeln!(text, "    /// `{name}` of `{file}`.")?;
    writeln!(text, "    #[derive(Debug, Clone, Copy, Default)]\n    pub struct {name} {{")?;
    for field in fields {
        writeln!(text, "        /// {}", field.doc.replace('[', "\\[").replace(']', "\\]"))?;
        writeln!(text, "        pub {}: {},", ident(&field.name), rust(field))?;
    }
    writeln!(text, "    }}\n\n    impl ::pheye_kernels::ParamField for {name} {{")?;
    writeln!(text, "        const SIZE: usize = {size};\n\n        fn store(&self, to: &mut [u8]) {{")?;
    for field in fields {
        let (start, end) = (field.offset, field.offset + field.size);
        let name = ident(&field.name);
        writeln!(
            text,
            "            ::pheye_kernels::ParamField::store(&self.{name}, &mut to[{start}..{end}]);"
        )?;
    }
    writeln!(text, "        }}\n    }}\n")?;
    if item.taken {
        writeln!(text, "    impl ::pheye_kernels::Params for {name} {{")?;
        writeln!(text, "        const NAME: &'static str = {name:?};\n    }}\n")?;
    }
    Ok(())
}

fn rust(field: &Field) -> String {
    let one = match &field.kind {
        Kind::In => "::pheye_kernels::In".to_owned(),
        Kind::Out => "::pheye_kernels::Out".to_owned(),
        Kind::Number(name) => (*name).to_owned(),
        Kind::Struct(name) => name.clone(),
    };
    match field.length {
        Some(length) => format!("[{one}; {length}]"),
        None => one,
    }
}

/// The name as a Rust identifier; a Rust keyword becomes a raw identifier.
fn ident(name: &str) -> String {
    const KEYWORDS: [&str; 20] = [
        "as", "async", "await", "box", "dyn", "fn", "impl", "in", "let", "loop", "match", "mod", "move",
        "mut", "pub", "ref", "trait", "type", "use", "where",
    ];
    if KEYWORDS.contains(&name) { format!("r#{name}") } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structs(text: &str) -> Result<Vec<Struct>, String> {
        let dir = std::env::temp_dir().join(format!(
            "pheye-params-{}-{:x}",
            std::process::id(),
            text.len() * 31 + text.bytes().map(usize::from).sum::<usize>()
        ));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("one.cu");
        std::fs::write(&path, text).unwrap();
        let found = of(&[Source { name: "one".to_owned(), path }], &[]);
        std::fs::remove_dir_all(&dir).unwrap();
        found
    }

    #[test]
    fn a_struct_has_its_layout_and_its_words() {
        let text = "
            constexpr int COUNT = 3;
            struct Part { const float* x; int n; };  // 16 bytes
            template <class T>
            struct One {
                const T* x;  // [rows, cols]
                T *y, *z;
                int rows, /* of x */ cols;
                float scale;
                // how many
                uint64_t in;
                Part of[COUNT];
                unsigned last;
            };
            // KERNEL(commented, Other, 1, 0)
            KERNEL(one_f32, One<float>, 32, 0) {}";
        let all = structs(text).unwrap();
        let [part, one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((part.size, part.taken, one.size, one.taken), (16, false, 104, true));
        let shown: Vec<_> =
            one.fields.iter().map(|f| format!("{} {} {} {}", f.name, rust(f), f.offset, f.doc)).collect();
        let expected = [
            "x ::pheye_kernels::In 0 `const T*`: [rows, cols]",
            "y ::pheye_kernels::Out 8 `T*`",
            "z ::pheye_kernels::Out 16 `T*`",
            "rows i32 24 `int`",
            "cols i32 28 `int`",
            "scale f32 32 `float`",
            "in u64 40 `uint64_t`: how many",
            "of [Part; 3] 48 `Part`",
            "last u32 96 `unsigned`",
        ];
        assert_eq!(shown, expected);
        assert!(one.asserts().contains("offsetof(One<float>, last) == 96"));
        assert!(super::text(&all).contains("pub r#in: u64,"));
    }

    #[test]
    fn what_is_not_understood_is_named() {
        let kernel = "KERNEL(k, One, 32, 0) {}";
        for (text, part) in [
            ("struct One { bf16 x; };", "no struct `bf16`"),
            ("struct One { int n() const; };", "`int n() const` is not understood"),
            ("struct One { int n = 3; };", "`int n = 3`"),
            ("struct One { float* x, y; };", "`float* x, y`"),
            ("struct One { int n[LATER]; };", "`LATER`"),
            ("struct One { };", "no fields"),
            ("struct Other { int n; };", "no struct `One`"),
        ] {
            let error = structs(&format!("{text}\n{kernel}")).unwrap_err();
            assert!(error.contains(part) && error.contains("one.cu") && error.contains("One"), "{error}");
        }
    }
}
