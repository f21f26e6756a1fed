//! A stream that xz packed.

use std::{
    io::{self, BufRead, Read},
    panic::{AssertUnwindSafe, catch_unwind},
};

use xz4rust::{DICT_SIZE_MIN, XzDecoder, XzError, XzNextBlockResult};

pub(super) struct XzStream<R> {
    packed: R,
    decoder: Box<XzDecoder<'static>>,
    /// Between two streams, which may follow each other in one file.
    is_between: bool,
    is_broken: bool,
}

impl<R: BufRead> XzStream<R> {
    /// `dictionary`: what the decoder may allocate, whatever the file asks for.
    pub(super) fn new(packed: R, dictionary: usize) -> Self {
        let decoder = XzDecoder::in_heap_with_alloc_dict_size(DICT_SIZE_MIN, dictionary);
        Self { packed, decoder, is_between: false, is_broken: false }
    }

    fn next(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.packed.fill_buf()?;
            let is_over = input.is_empty();
            if self.is_between {
                // Filled up with zeros, to a multiple of four.
                let zeros = input.iter().take_while(|byte| **byte == 0).count();
                if is_over {
                    return Ok(0);
                }
                let is_next = zeros < input.len();
                self.packed.consume(zeros);
                if is_next {
                    self.decoder.reset();
                    self.is_between = false;
                }
                continue;
            }
            let decoder = &mut self.decoder;
            // The decoder does not promise that damaged input never makes it panic.
            let decode = AssertUnwindSafe(|| decoder.decode(input, buffer));
            let decoded = catch_unwind(decode).map_err(|_| io::Error::other("it is damaged"))?;
            let decoded = decoded.map_err(|why| {
                io::Error::other(match why {
                    XzError::DictionaryTooLarge(bytes) => {
                        format!("it asks for {} MiB of memory to be unpacked", bytes >> 20)
                    }
                    why => format!("it is damaged: {why}"),
                })
            })?;
            let (read, written) = (decoded.input_consumed(), decoded.output_produced());
            self.packed.consume(read);
            self.is_between = matches!(decoded, XzNextBlockResult::EndOfStream(..));
            if written > 0 {
                return Ok(written);
            }
            if is_over && !self.is_between {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
            }
            if read == 0 && !self.is_between {
                return Err(io::Error::other("it is damaged"));
            }
        }
    }
}

impl<R: BufRead> Read for XzStream<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.is_broken {
            return Err(io::Error::other("it is damaged"));
        }
        let read = self.next(buffer);
        self.is_broken =
            read.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        read
    }
}
