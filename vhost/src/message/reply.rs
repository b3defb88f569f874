//! What a back-end answers.

use super::fields::Reader;
use super::{Code, Header, Message, MessageError, VringState};

/// An answer to a request, or the acknowledgement of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The request that is answered.
    pub code: Code,
    /// The answer.
    pub body: ReplyBody,
}

/// What an answer consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody {
    /// A number; as an acknowledgement, 0 for success.
    Number(u64),
    /// A ring and its position.
    Vring(VringState),
}

impl Reply {
    /// A number that was asked for.
    pub fn number(code: Code, number: u64) -> Self {
        Self { code, body: ReplyBody::Number(number) }
    }

    /// The acknowledgement of a request that was served, or not.
    pub fn acknowledge(code: Code, served: bool) -> Self {
        Self::number(code, u64::from(!served))
    }

    /// The message that carries it.
    pub fn encode(&self) -> Message {
        let payload = match self.body {
            ReplyBody::Number(number) => number.to_ne_bytes().to_vec(),
            ReplyBody::Vring(state) => state.encode(),
        };
        let payload_bytes = payload.len();
        let code = self.code as u32;
        let header = Header { code, reply: true, need_reply: false, payload_bytes };
        Message { header, payload, descriptors: Vec::new() }
    }

    /// Takes an answer apart, as a front-end does.
    pub fn decode(message: &Message) -> Result<Self, MessageError> {
        let number = message.header.code;
        let code = Code::try_from(number)?;
        if !message.header.reply {
            let (found, wanted) = ("request", "reply");
            return Err(MessageError::Direction { code: number, found, wanted });
        }
        let body = match code {
            Code::GetVringBase => ReplyBody::Vring(VringState::decode(code, &message.payload)?),
            _ => ReplyBody::Number(Reader::new(code, &message.payload, 8)?.u64()),
        };
        Ok(Self { code, body })
    }
}
