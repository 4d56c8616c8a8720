//! A handshake that is answered 101 only to be closed with a code: pages cannot read the status of one that is not.

use super::upgrade::Goodbye;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// For the client to end its side.
const PATIENCE: Duration = Duration::from_secs(5);
/// Whatever the client goes on saying is not read beyond this.
const READ_BYTES_MAX: u64 = 64 << 10;
/// A whole Close frame begins so.
const CLOSE: u8 = 0x88;
/// RFC 6455, section 5.5, less the code.
const REASON_BYTES_MAX: usize = 123;

/// Says it, and waits a while for the client's side to end: bytes that are not read would take the Close with them.
pub(super) async fn say<S>(goodbye: Goodbye, mut stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let spoken = async {
        stream.write_all(&bytes(goodbye)).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(READ_BYTES_MAX), &mut tokio::io::sink()).await
    };
    // a client that is gone already has nothing to hear
    tokio::time::timeout(PATIENCE, spoken).await.ok();
}

fn bytes(goodbye: Goodbye) -> Vec<u8> {
    let Goodbye { mut answer, code, mut reason } = goodbye;
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    let length = u8::try_from(2 + reason.len()).expect("the reason was cut");
    answer.extend_from_slice(&[CLOSE, length]);
    answer.extend_from_slice(&code.code().to_be_bytes());
    answer.extend_from_slice(reason.as_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use minium_protocol::CloseCode;

    #[test]
    fn a_close_frame_follows_the_101() {
        let goodbye = |reason: &str| Goodbye {
            answer: b"101".to_vec(),
            code: CloseCode::Forbidden,
            reason: reason.into(),
        };
        assert_eq!(bytes(goodbye("no")), b"101\x88\x04\x11\x97no");
        let long = bytes(goodbye(&"\u{e4}".repeat(100)));
        assert_eq!(long.len(), 3 + 2 + 2 + 122, "a control frame is short, and its text is whole letters");
        assert!(std::str::from_utf8(&long[7..]).is_ok());
    }
}
