//! Abbreviations that keep their full stop, and the words that begin a sentence after an acronym.
//!
//! Each table is an alternation of a regular expression, for both cases unless a class says otherwise.

/// Abbreviations that lower case follows: months, days, states, kinds of companies. Before upper case they end
/// a sentence, which a second full stop marks.
pub(super) const MEDIAL: &[&str] = &[
    "jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec",
    "mon|tues?|wed|thu(?:rs)?|fri",
    "ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kans?|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|wisc?|wyo",
    "(?-i:A)z|(?-i:A)rk|(?-i:D)el|(?-i:I)ll|(?-i:L)a|(?-i:M)ass|(?-i:M)iss|(?-i:O)re|(?-i:P)a|(?-i:T)ex|(?-i:W)ash",
    "inc|cos?|corp|pt[ey]s?|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys",
    r"tel|est|ext|sq|jr|sr|bros|ed\.d|ph\.d|blvd|rd|esq|etc|al|seq|bldg",
];

/// Abbreviations that a name follows: titles and the like.
pub(super) const INITIAL: &[&str] = &[
    "mr|mrs|ms|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|capt|ste?|ave",
    "pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc",
    r"vs|alex|wm|jos|cie|a\.k\.a|cf|treas|ph|invt|elec|natl|mfg|mtg|dept",
];

/// Abbreviations only before a digit.
pub(super) const NUMBERED: &str = "ca|figs?|prop|nos?|art|bldg|pp|op";

/// Words with a capital, before which the full stop of an acronym ends a sentence.
#[rustfmt::skip]
pub(super) const STARTERS: &[&str] = &[
    "About", "According", "Additionally", "After", "An", "A", "As", "At", "But", "Earlier", "He", "Her",
    "Here", "However", "If", "In", "It", "Last", "Many", "More", "Mr\\.", "Ms\\.", "Now", "Once", "One",
    "Other", "Our", "She", "Since", "So", "Some", "Such", "That", "The", "Their", "Then", "There", "These",
    "They", "This", "We", "When", "While", "What", "Yet", "You",
];
