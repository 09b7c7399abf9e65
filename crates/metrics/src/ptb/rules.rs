//! The rules of the tokenizer, as data.
//!
//! Of all rules that match at a place, the one whose match is longest wins, where what it must see after its
//! token (`ahead`) counts as part of the match; of equally long ones, the first. Names in braces stand for the
//! parts of [`expand`].

use super::abbreviations::{INITIAL, MEDIAL, NUMBERED, STARTERS};
use super::characters::{DIGIT, LETTER, PLAIN_LETTER, SPACE, SYMBOL, UPPER, WHITE};
use super::emit::Emit::{
    self, Ampersand, Apostrophe, As, Joined, Nothing, Quotes, Sentence, Spaced, Text, Word,
};

/// A rule of the tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rule {
    /// What becomes a token.
    pub(super) body: &'static str,
    /// What must follow it; empty if anything may.
    pub(super) ahead: &'static str,
    /// What token it becomes.
    pub(super) emit: Emit,
}

const fn rule(body: &'static str, emit: Emit) -> Rule {
    Rule { body, ahead: "", emit }
}

const fn before(body: &'static str, ahead: &'static str, emit: Emit) -> Rule {
    Rule { body, ahead, emit }
}

/// The rules, in order of precedence.
#[rustfmt::skip]
pub(super) const RULES: &[Rule] = &[
    rule("{SPACE}+", Nothing),
    rule(r"(?i-u:c\+\+|[cf]#)", Text),
    // Words that are split.
    before(r"(?i-u:can)", r"(?i-u:not)", Text),
    before(r"'(?i-u:t)", r"(?i-u:was|is)", Text),
    before(r"(?i-u:gon|wan)", r"(?i-u:na)", Text),
    before(r"(?i-u:got)", r"(?i-u:ta)", Text),
    before(r"(?i-u:lem|gim)", r"(?i-u:me)", Text),
    // Tags, dashes, entities.
    rule(r"{TAG}", Spaced),
    rule(r"(?:[\u{96}\u{97}\u{2013}-\u{2015}]|&(?i-u:[mn]dash);)", As("--")),
    rule(r"&(?i-u:amp);", As("&")),
    rule(r"(?:&#[0-9]+;|{ACCENTED})", Text),
    // Words.
    rule(r"{WORD}", Word),
    before(r"{WORD}", r"{APOS}(?i-u:[msd]|re|ve|ll)", Word),
    before(r"[A-Za-z\u{AD}]*[A-MO-Za-mo-z]\u{AD}*", r"(?i-u:n){TICK}(?i-u:t)", Word),
    rule(r"(?i-u:{APOS}n{APOS}?|[ldj]{APOS}|dunkin{APOS}|somethin{APOS}|ol{APOS}|{APOS}em|{APOS}[2-9]0s)", Text),
    before(r"{APOS}[0-9]{2}", r"{WHITE}", Text),
    rule(r"(?i-u:{APOS}till?|{APOS}cause|nor'easter|c'mon|e'er|s'mores|ev'ry|li'l|nat'l|o{TICK}o|cap{APOS}n|c{APOS}est)", Text),
    rule(r"[A-HJ-XZdlno]{TICK}{PLAIN}{PLAIN}+", Text),
    rule(r"{PLAIN}+[aeiouyAEIOUY]{TICK}[aeiouA-Z]{PLAIN}*", Text),
    before(r"(?i-u:y){APOS}", r"{LETTER}", Text),
    // Addresses.
    rule(r#"(?i-u:https?)://[^ \t\n"<>|(){}]+[^ \t\n"<>|(){}.,!?-]"#, Text),
    rule(r"{HOST}", Text),
    rule(r"{MAIL}", Text),
    rule(r"@[A-Za-z_][A-Za-z_0-9]*", Text),
    rule(r"#{LETTER}+", Text),
    // Clitics.
    rule(r"(?i-u:n){TICK}(?i-u:t)", Apostrophe),
    before(r"{APOS}(?i-u:[msd]|re|ve|ll)", r"[^A-Za-z]", Apostrophe),
    // Before a letter, an apostrophe opens rather than begins a clitic.
    before("'", r"[A-Za-z][^ \t\n\u{A0}]", As("`")),
    rule(r"{APOS}(?i-u:[msd]|re|ve|ll)", Apostrophe),
    // Numbers.
    rule(r"{D}{1,2}[-/]{D}{1,2}[-/]{D}{2,4}", Text),
    rule(r"[-+]?(?:{D}+|{D}*(?:[.:,\u{AD}\u{66B}\u{66C}]{D}+)+)", Word),
    rule(r"[\u{207A}\u{207B}\u{208A}\u{208B}]?(?:[\u{B2}\u{B3}\u{B9}\u{2070}\u{2074}-\u{2079}]+|[\u{2080}-\u{2089}]+)", Text),
    rule(r"(?:{D}{1,4}[- \u{A0}])?{D}{1,4}(?:\\?/|\u{2044}){D}{1,4}", Joined),
    rule("\u{bc}", As("1/4")), rule("\u{bd}", As("1/2")), rule("\u{be}", As("3/4")),
    rule("\u{2153}", As("1/3")), rule("\u{2154}", As("2/3")),
    // Fixed.
    rule(r"-(?i-u:[LR][RCS]B)-", Text),
    rule(r"(?:(?i-u:C\.D\.s|pro-|anti-|S&P-500|S&Ls))", Text),
    rule(r"{SLASHED}(?:\\?/{SLASHED}){1,2}", Text),
    // Currencies.
    rule(r"[A-Z]*\$", Text),
    rule(r"#", Text),
    rule("\u{a2}", As("cents")), rule("\u{a3}", As("#")),
    rule("[\u{80}\u{a4}\u{20a0}\u{20ac}]", As("$")),
    rule(r"[\u{A5}\u{E3F}\u{20A4}\u{FFE0}\u{FFE1}\u{FFE5}\u{FFE6}]", Text),
    // Abbreviations.
    before(r"(?i-u:pt[ey]|co)\.", r"{SPACE}(?i-u:ltd|lim)", Text),
    before(r"(?i-u:{MEDIAL})\.", r"{WHITE}*(?:{WHITE}{UPPER}|{WHITE}{WHITE}|{WHITE}{TAG})", Sentence),
    before(r"(?i-u:{MEDIAL})\.", r"(?s:..)", Text),
    rule(r"(?i-u:{MEDIAL})\.", Sentence),
    before(r"{ACRONYM}", r"{WHITE}+(?:(?:{STARTERS})|{TAG}){WHITE}", Sentence),
    before(r"[A-Za-z]", r"\.{WHITE}+(?:(?:{STARTERS})|{TAG}){WHITE}", Text),
    rule(r"(?:{ACRONYM}|[A-Za-z]\.|[A-Za-z0-9][A-Za-z0-9.,]*-(?:[A-Za-z0-9]+-)*{ACRONYM})", Text),
    before("{UNDOTTED}", "{WHITE}", Text),
    rule(r"(?i-u:{INITIAL})\.", Text),
    before(r"(?i-u:{NUMBERED})\.", r"{WHITE}?{D}", Text),
    rule(r"(?:\([0-9]{2,3}\)[ \u{A0}]?|\+{0,2}(?:[0-9]{2,4}{SEP})?[0-9]{2,4}{SEP})[0-9]{3,4}{SEP}?[0-9]{3,5}", Joined),
    before(r"{LD}+(?:\.{LD}+)*\.(?i-u:{FILE})", r"(?:{WHITE}|[.?!,])", Text),
    before(r"(?:{THING}|{WORD}|{JOINED})\.", r"[,;:]", Word),
    // Quotation marks.
    before(r#"""#, "[A-Za-z0-9$]", As("``")), rule(r#"""#, As("''")),
    before("&quot;", "[A-Za-z0-9$]", As("``")), rule("&quot;", As("''")), rule("(?i-u:&quot;)", Text),
    // Signs of comparison, faces, brackets.
    rule(r"(?:<|&(?i-u:lt);)", As("<")), rule(r"(?:>|&(?i-u:gt);)", As(">")),
    before(r"[<>]?[:;=][-o*']?[()DPdpO\\{@|\[\]]", "[^A-Za-z0-9]", Joined),
    rule(r"[-\^x=~<>']_[-\^x=~<>']", Text),
    rule(r"\((?:[-\^x=~<>'][_.]?|[\^x=~<>']-)[-\^x=~<>']\)|\([\^x=~<>']-`\)", Joined),
    rule(r"\{", As("-LCB-")), rule(r"\}", As("-RCB-")),
    rule(r"\[", As("-LSB-")), rule(r"\]", As("-RSB-")),
    rule(r"\(", As("-LRB-")), rule(r"\)", As("-RRB-")),
    // Punctuation.
    rule(r"-{3,4}", As("--")), rule(r"-+", Text),
    rule(r"(?:\.{3,5}|\.(?:[ \u{A0}]\.){2,4}|[\u{2026}\u{85}])", As("...")),
    rule(r"(?:@+|#+|_+|\*+|(?:\\\*)+|[?!]+|[,;:\u{3001}.\u{A1}\u{BF}=/])", Text),
    // Compounds.
    rule(r"{THING}", Word),
    rule(r"[A-Za-z0-9][A-Za-z0-9.,\u{AD}]*(?:-(?:[A-Za-z0-9]|\u{AD})+)+", Word),
    rule(r"{JOINED}", Ampersand),
    // What is left.
    rule("(?:'|&apos;)", Apostrophe), rule("''", Text), rule("``", Text),
    rule(r"[`\u{91}-\u{94}\u{2018}-\u{201F}\u{2039}\u{203A}\u{AB}\u{BB}]{1,2}", Quotes),
    rule("<<", Text), rule(">>", Text),
    rule(r"{SYMBOL}", Text),
    rule(r"&(?i-u:nbsp);", Nothing),
    rule(r"(?s:.)", Nothing),
];

/// The parts that rules name in braces. A part may name those above it.
#[rustfmt::skip]
const PARTS: &[(&str, &str)] = &[
    ("{LETTER}", LETTER),
    ("{PLAIN}", PLAIN_LETTER),
    ("{D}", DIGIT),
    ("{UPPER}", UPPER),
    ("{SPACE}", SPACE),
    ("{WHITE}", WHITE),
    ("{SYMBOL}", SYMBOL),
    ("{NUMBERED}", NUMBERED),
    ("{FILE}", "bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|ps|py|sql|tar|txt|wav|x|xml|zip"),
    ("{APOS}", r"(?:'|\u{92}|\u{2019}|&apos;)"),
    ("{SEP}", r"[- \u{A0}]"),
    ("{LD}", r"(?:{LETTER}|{D})"),
    ("{ACCENTED}", r"(?:&(?i-u:[aeiou](?:acute|grave|uml));)"),
    ("{WORD}", r"(?:(?:{LETTER}|{ACCENTED})(?:{LD}|{ACCENTED})*(?:[.!?](?:{LETTER}|{ACCENTED})(?:{LD}|{ACCENTED})*)*)"),
    ("{TICK}", r"(?:'|`|\u{91}|\u{92}|\u{2018}|\u{2019}|\u{201B}|&apos;)"),
    ("{PLAIN_LD}", r"(?:{PLAIN}|{D})"),
    ("{PART}", r"(?:(?:[dDoOlL]{TICK}{PLAIN_LD})?{PLAIN_LD}+)"),
    ("{THING}", r"(?:{PART}(?:[-_\u{58A}\u{2010}\u{2011}]{PART})*)"),
    ("{JOINED}", "[A-Z]+(?:(?:&(?:(?i-u:amp);)?|\\+)[A-Z]+)+"),
    ("{SLASHED}", "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"),
    ("{UNDOTTED}", r"(?:(?i-u:canada|sino|korean|eu|japan|non)-(?i-u:u\.s)|(?i-u:u\.s\.-u\.(?:k|s\.s\.r))|[A-Za-z](?:\.[A-Za-z])+)"),
    ("{ACRONYM}", r"(?:{UNDOTTED}\.)"),
    ("{LABEL}", r"[#%&*+~a-z\u{1}-\u{8}\u{B}-\u{1F}\u{7F}-\u{10FFFF}]"),
    ("{PATH}", r#"(?:/[^ \t\n"<>|()]+[^ \t\n"<>|().,!?{}-])"#),
    ("{HOST}", r#"(?:(?i-u:www)\.(?:[^ \t\n"<>|().!?,{}]+\.)+[A-Za-z]{2,4}{PATH}?|(?:{LABEL}+\.)+(?i-u:com|net|org|edu){PATH}?)"#),
    ("{MAIL}", r#"(?:<?[A-Za-z0-9][^\x20\t\n\u{A0}"<>|(){}]*@[^\x20\t\n\u{A0}"<>|(){}.]+(?:\.[^\x20\t\n\u{A0}"<>|(){}.]+)*>?)"#),
    ("{NAME}", r"[A-Za-z][A-Za-z0-9_:.-]*"),
    ("{VALUE}", r#"(?:"[^"]*"|'[^']*')"#),
    ("{TAG}", r"(?:<(?:{NAME}(?:[ ]+{NAME}(?:[ ]*=[ ]*{VALUE})?)*[ ]*/?[ ]*|/{NAME}[ ]*)>|<[!?][A-Za-z-][^>\n]*>)"),
];

/// `pattern` with every part that it names in place.
pub(super) fn expand(pattern: &str) -> String {
    // The first letter of a starter is a capital, the others are of any case.
    let starters = STARTERS.iter().map(|word| format!("{}(?i-u:{})", &word[..1], &word[1..]));
    let starters = starters.collect::<Vec<_>>().join("|");
    let joined = |table: &[&str]| table.join("|");
    let mut out = pattern
        .replace("{MEDIAL}", &joined(MEDIAL))
        .replace("{INITIAL}", &joined(INITIAL))
        .replace("{STARTERS}", &starters);
    for (name, part) in PARTS.iter().rev() {
        out = out.replace(name, part);
    }
    out
}
