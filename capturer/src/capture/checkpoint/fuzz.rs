//! Fuzz entry of the checkpoint's text: see [`crate::fuzz`]. No fuzzer guesses a checksum, so the input is also taken
//! as a body and given the right header.

use super::{VERSION, checksum, decode, encode, header};

/// A file called checkpoint.json, or the body of one.
pub fn check(bytes: &[u8]) {
    survives(bytes);
    let len = bytes.len() as u64;
    let file = [header(VERSION, checksum(VERSION, bytes), len), bytes.to_vec()].concat();
    survives(&file);
    // What is cut short or longer is refused, whatever it holds.
    for end in [0, file.len() / 2, file.len() - 1] {
        decode(&file[..end]).expect_err("cut short");
    }
    decode(&[&file[..], b"\n"].concat()).expect_err("too long");
}

/// What is understood means the same when it is saved again.
fn survives(file: &[u8]) {
    let Ok(checkpoint) = decode(file) else { return };
    let again = encode(&checkpoint);
    assert_eq!(decode(&again).expect("just encoded"), checkpoint);
    assert_eq!(encode(&decode(&again).expect("just encoded")), again);
}
