//! The character classes of the tokenizer, as parts of regular expressions.
//!
//! The tokenizer's tables are those of Unicode 6.1, with marks of the usual scripts among the letters. They
//! were found by asking it about every character of the Basic Multilingual Plane; it knows none beyond.

/// Letters.
pub(super) const PLAIN_LETTER: &str =
    r"[[\p{L}&&\p{Age:6.1}&&[\u{0}-\u{FFFF}]]--[\u{19B0}-\u{19C0}\u{19C8}\u{19C9}\u{1CF2}\u{1CF3}]]";

/// Letters, marks that continue a word, and the soft hyphen.
pub(super) const LETTER: &str = concat!(
    r"[[[\p{L}&&\p{Age:6.1}&&[\u{0}-\u{FFFF}]]--[\u{19B0}-\u{19C0}\u{19C8}\u{19C9}\u{1CF2}\u{1CF3}]]",
    r"\u{AD}\u{2C2}-\u{2C5}\u{2D2}-\u{2DF}\u{2E5}-\u{2EB}\u{2ED}\u{2EF}-\u{36F}\u{375}\u{378}\u{379}",
    r"\u{384}\u{385}\u{3F6}\u{483}-\u{487}\u{55A}-\u{55F}\u{591}-\u{5BD}\u{5BF}\u{5C1}\u{5C2}\u{5C4}\u{5C5}",
    r"\u{5C7}\u{615}-\u{61A}\u{64B}-\u{65E}\u{670}\u{6D6}-\u{6E4}\u{6E7}-\u{6ED}\u{6FD}\u{6FE}\u{70F}\u{711}",
    r"\u{730}-\u{74C}\u{7A6}-\u{7B0}\u{7EB}-\u{7F3}\u{900}-\u{903}\u{93C}\u{93E}-\u{94E}\u{951}-\u{955}",
    r"\u{962}\u{963}\u{981}-\u{983}\u{9BC}\u{9BE}-\u{9C4}\u{9C7}\u{9C8}\u{9CB}-\u{9CD}\u{9D7}\u{9E2}\u{9E3}",
    r"\u{A01}-\u{A03}\u{A3C}\u{A3E}-\u{A4F}\u{A81}-\u{A83}\u{ABC}\u{ABE}-\u{ACF}\u{B82}\u{BBE}-\u{BC2}",
    r"\u{BC6}-\u{BC8}\u{BCA}-\u{BCD}\u{C01}-\u{C03}\u{C3E}-\u{C56}\u{D3E}-\u{D44}\u{D46}-\u{D48}\u{E31}",
    r"\u{E34}-\u{E3A}\u{E47}-\u{E4E}\u{EB1}\u{EB4}-\u{EBC}\u{EC8}-\u{ECD}\u{1885}\u{1886}]",
);

/// Decimal digits.
pub(super) const DIGIT: &str = r"[\p{Nd}&&\p{Age:6.1}&&[\u{0}-\u{FFFF}]]";

/// Upper-case letters, which may begin a sentence.
pub(super) const UPPER: &str = r"[\p{Lu}&&\p{Age:6.1}&&[\u{0}-\u{FFFF}]]";

/// Spaces.
pub(super) const SPACE: &str = r"[ \t\u{A0}\u{2000}-\u{200A}\u{3000}]";

/// Spaces and ends of lines.
pub(super) const WHITE: &str = r"[ \t\u{A0}\u{2000}-\u{200A}\u{3000}\n\u{85}]";

/// Symbols that are tokens, each alone.
pub(super) const SYMBOL: &str = concat!(
    r"[+%&~\^|\\\u{A6}-\u{A9}\u{AC}\u{AE}-\u{B4}\u{B6}-\u{B9}\u{D7}\u{F7}\u{37E}\u{387}\u{589}\u{5BE}\u{5C0}",
    r"\u{5C3}\u{5C6}\u{5F3}\u{5F4}\u{600}-\u{603}\u{606}-\u{60C}\u{614}\u{61B}\u{61E}\u{61F}\u{66A}\u{66D}",
    r"\u{6D4}\u{700}-\u{70D}\u{7F6}-\u{7F8}\u{964}\u{965}\u{E4F}\u{1FBD}\u{2016}\u{2017}\u{2020}-\u{2023}",
    r"\u{2030}-\u{2038}\u{203B}\u{203E}-\u{2042}\u{2044}\u{207A}-\u{207E}\u{208A}-\u{208E}\u{2100}\u{2101}",
    r"\u{2103}-\u{2106}\u{2108}\u{2109}\u{2114}\u{2116}-\u{2118}\u{211E}-\u{2123}\u{2125}\u{2127}\u{2129}",
    r"\u{212E}\u{213A}\u{213B}\u{2140}-\u{2144}\u{214A}-\u{214D}\u{214F}\u{2155}-\u{215E}\u{2190}-\u{2BFF}",
    r"\u{3002}\u{3012}\u{30FB}\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF20}\u{FF3B}-\u{FF40}\u{FF5B}-\u{FF65}]",
);
