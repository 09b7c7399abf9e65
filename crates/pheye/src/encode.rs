//! Tokenizes the texts of a training run: its tokenizer and prompt template as the function that the trainer
//! takes.

use pheye_data::{Encode, Encoded, Example};
use pheye_text::Tokenizer;
use pheye_train::{Config, Task};

use crate::Result;

/// The function that tokenizes for `config`. Targets are the tokens of the answer after its prompt, and for
/// plain texts all tokens from the second on.
///
/// # Errors
/// Returns an error if the tokenizer cannot be read, or has ids outside the model's vocabulary.
pub fn encoder(config: &Config) -> Result<Box<Encode>> {
    let shape = config.shape()?;
    let file = config.tokenizer()?;
    let tokenizer = Tokenizer::from_file(file, None)?;
    tokenizer.check_fits(shape.vocab_size)?;
    let (task, prompt) = (config.task, shape.prompt);
    let most = config.data.max_tokens.unwrap_or(shape.context);
    Ok(Box::new(move |example| {
        Ok(match example {
            Example::Question(question, answer) => {
                let example = prompt.encode_example(&tokenizer, question, answer, most)?;
                let loss_from = if task == Task::NextToken { 1 } else { example.loss_from };
                Encoded { ids: example.ids, loss_from }
            }
            Example::Text(text) => {
                let mut ids = tokenizer.encode_within(text, most)?;
                if task == Task::Contrastive {
                    // Contrastive training has no targets, so a caption of one token is valid.
                    return Ok(Encoded { ids, loss_from: 0 });
                }
                ids.push(tokenizer.end_token());
                Encoded { ids, loss_from: 1 }
            }
        })
    }))
}
