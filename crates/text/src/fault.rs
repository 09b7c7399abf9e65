//! Why a `tokenizer.json` is rejected, before its path is known.

/// Why a `tokenizer.json` is rejected.
#[derive(Debug)]
pub(crate) enum Fault {
    /// It is not a valid `tokenizer.json`.
    Form(serde_json::Error),
    /// It exceeds a limit.
    Excess(String),
}

impl From<serde_json::Error> for Fault {
    fn from(e: serde_json::Error) -> Fault {
        Fault::Form(e)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Fault {
        Fault::Excess(reason)
    }
}
