//! As much of Bolt as it takes to see statements and answers pass: messages come in chunks, the last of which is empty.

/// What opens a connection: four bytes that are always the same, and four versions.
const HANDSHAKE: usize = 20;
const RUN: u8 = 0x10;
/// SUCCESS, IGNORED, FAILURE.
const FINAL: [u8; 3] = [0x70, 0x7E, 0x7F];

/// SUCCESS with an empty map.
const NOTHING_TO_SAY: [u8; 3] = [0xB1, 0x70, 0xA0];

/// The length of the client's first message, once it is there.
pub fn frame(bytes: &[u8], greeted: bool) -> Option<usize> {
    match greeted {
        true => message(bytes).map(|(_, length)| length),
        false => (bytes.len() >= HANDSHAKE).then_some(HANDSHAKE),
    }
}

/// The statement that a message runs.
pub fn statement(frame: &[u8]) -> Option<String> {
    let (content, _) = message(frame)?;
    let [_, RUN, rest @ ..] = content.as_slice() else {
        return None;
    };
    let (length, text) = match rest {
        [tiny @ 0x80..=0x8F, text @ ..] => (usize::from(tiny & 0x0F), text),
        [0xD0, length, text @ ..] => (usize::from(*length), text),
        [0xD1, one, two, text @ ..] => (usize::from(u16::from_be_bytes([*one, *two])), text),
        [0xD2, one, two, three, four, text @ ..] => {
            (u32::from_be_bytes([*one, *two, *three, *four]).try_into().ok()?, text)
        }
        _ => return None,
    };
    Some(String::from_utf8_lossy(text.get(..length)?).into_owned())
}

/// Whether a statement and the demand for its rows, which is sent along, are both answered. What a RESET before them is answered says nothing.
pub fn is_answered(mut answer: &[u8]) -> bool {
    let mut finals = 0;
    while let Some((content, length)) = message(answer) {
        let is_final = content.get(1).is_some_and(|signature| FINAL.contains(signature));
        finals += usize::from(is_final && content != NOTHING_TO_SAY);
        answer = &answer[length..];
    }
    finals >= 2
}

/// The first message without its chunks' lengths, and how long it is with them.
fn message(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut content, mut at) = (Vec::new(), 0);
    loop {
        let length = usize::from(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        at += 2;
        if length == 0 {
            return Some((content, at));
        }
        content.extend(bytes.get(at..at + length)?);
        at += length;
    }
}
