//! Finds numbers of payment cards in a text.

use std::ops::Range;

/// Digits of the longest and the shortest number of a payment card.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// Places of payment card numbers: 13 to 19 digits in groups that begin as an issuer's do and have a valid check digit.
/// Random digits pass both tests about once in a hundred.
pub(super) fn cards(text: &[u8]) -> Vec<Range<usize>> {
    let (mut found, mut at): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    while let Some(run) = text[at..].iter().position(u8::is_ascii_digit) {
        let start = at + run;
        let end = start + text[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let inside_a_word = start > 0 && text[start - 1].is_ascii_alphabetic();
        match (!inside_a_word).then(|| card_at(text, start)).flatten() {
            Some(card_end) => {
                found.push(start..card_end);
                at = card_end;
            }
            // A number can begin at any group of digits, but not within one.
            None => at = end,
        }
    }
    found
}

/// The end of the longest card's number that begins here.
fn card_at(text: &[u8], start: usize) -> Option<usize> {
    let (mut digits, mut count, mut at, mut longest) = ([0; 19], 0, start, None);
    loop {
        while let Some(byte) = text.get(at).filter(|byte| byte.is_ascii_digit()) {
            *digits.get_mut(count)? = byte - b'0';
            count += 1;
            at += 1;
            if count == digits.len() && text.get(at).is_some_and(u8::is_ascii_digit) {
                return longest;
            }
        }
        let ends = !text.get(at).is_some_and(u8::is_ascii_alphabetic);
        if ends && CARD_DIGITS.contains(&count) && is_card(&digits[..count]) {
            longest = Some(at);
        }
        let goes_on =
            matches!(text.get(at), Some(b' ' | b'-')) && text.get(at + 1).is_some_and(u8::is_ascii_digit);
        if !goes_on || count == digits.len() {
            return longest;
        }
        at += 1;
    }
}

fn is_card(digits: &[u8]) -> bool {
    let begins = |len: usize| digits[..len].iter().fold(0_u32, |value, digit| value * 10 + u32::from(*digit));
    let (one, two, three, four) = (begins(1), begins(2), begins(3), begins(4));
    let issuer = match digits.len() {
        _ if one == 4 => matches!(digits.len(), 13 | 16 | 19),
        14 => matches!(three, 300..=305) || matches!(two, 36 | 38 | 39),
        15 => matches!(two, 34 | 37),
        16 if matches!(two, 51..=55) || matches!(four, 2221..=2720) => true,
        16..=19 => {
            four == 6011
                || matches!(three, 644..=649)
                || matches!(two, 62 | 65)
                || matches!(four, 3528..=3589)
        }
        _ => false,
    };
    // Maestro's numbers can have any of these lengths.
    let maestro = matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763);
    if !(issuer || maestro) {
        return false;
    }
    let doubled = |digit: u8| if digit > 4 { digit * 2 - 9 } else { digit * 2 };
    let from_the_end = digits.iter().rev().enumerate();
    let sum: u32 =
        from_the_end.map(|(at, digit)| u32::from(if at % 2 == 1 { doubled(*digit) } else { *digit })).sum();
    sum.is_multiple_of(10)
}
