//! METEOR 1.5 by its official Java program, which the caller has: its licence does not allow shipping it here.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Score, Tokenized};
use crate::{Error, Result};

/// METEOR as pycocoevalcap computes it with `jar` (`meteor-1.5.jar`, beside its folder `data`). Needs `java` on
/// the path. The score of the corpus is not the mean of the captions' scores.
///
/// # Errors
/// Returns [`Error::Java`] if `java` cannot be run, and [`Error::Meteor`] if the program does not answer as
/// METEOR does.
pub fn meteor(items: &[Tokenized], jar: &Path) -> Result<Score> {
    let mut program = Program::start(jar)?;
    let mut evaluation = "EVAL".to_owned();
    for item in items {
        let line = format!("SCORE ||| {} ||| {}", item.references.join(" ||| "), plain(&item.caption));
        evaluation += &format!(" ||| {}", program.ask(&line)?);
    }
    let mut each = Vec::with_capacity(items.len());
    program.say(&evaluation)?;
    for _ in items {
        each.push(program.number()?);
    }
    Ok(Score { corpus: program.number()?, each })
}

/// The caption without the separator of the protocol, and with double spaces halved once.
fn plain(caption: &str) -> String {
    caption.replace("|||", "").replace("  ", " ")
}

/// The running program.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    jar: String,
}

impl Program {
    fn start(jar: &Path) -> Result<Program> {
        let name = jar.display().to_string();
        let failed = |source| Error::Java { jar: name.clone(), source };
        let absolute =
            std::path::absolute(jar).and_then(|jar| jar.metadata().map(|_| jar)).map_err(failed)?;
        let mut child = Command::new("java")
            .args(["-Dfile.encoding=UTF-8", "-Xmx2G", "-jar"])
            .arg(absolute)
            .args(["-", "-", "-stdio", "-l", "en", "-norm"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        let pipes = (child.stdin.take(), child.stdout.take());
        let (Some(input), Some(output)) = pipes else {
            return Err(Error::Meteor { jar: name, message: "its input and output are closed".to_owned() });
        };
        Ok(Program { child, input, output: BufReader::new(output), jar: name })
    }

    fn io(&self, source: std::io::Error) -> Error {
        Error::Java { jar: self.jar.clone(), source }
    }

    fn wrong(&self, message: String) -> Error {
        Error::Meteor { jar: self.jar.clone(), message }
    }

    /// Sends a line. Line breaks in it would be further lines, and its answers would be taken for others.
    fn say(&mut self, line: &str) -> Result<()> {
        let line = line.replace(['\n', '\r'], " ") + "\n";
        let sent = self.input.write_all(line.as_bytes()).and_then(|()| self.input.flush());
        sent.map_err(|error| self.io(error))
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        let read = self.output.read_line(&mut line).map_err(|error| self.io(error))?;
        if read == 0 {
            return Err(self.wrong("it ended before it had answered".to_owned()));
        }
        Ok(line.trim().to_owned())
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        self.hear()
    }

    fn number(&mut self) -> Result<f64> {
        let line = self.hear()?;
        line.parse().map_err(|_| self.wrong(format!("it answered \"{line}\" instead of a number")))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
