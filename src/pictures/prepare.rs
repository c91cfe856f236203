//! Turns a file's bytes into a picture that every provider takes, or into a sentence that says why not.
//!
//! The bytes come from strangers. They are decoded one picture at a time and off the async threads, with limits on
//! pixels and memory that are checked against the header before anything is decoded.

use std::{io::Cursor, sync::Arc, time::Duration};

use bytes::Bytes;
use image::{
    DynamicImage, ExtendedColorType, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
    codecs::jpeg::JpegEncoder, metadata::Orientation,
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};
use zune_core::{colorspace::ColorSpace, options::DecoderOptions};
use zune_jpeg::JpegDecoder;

use crate::strings::files;

/// The largest file that is decoded, in bytes.
pub(crate) const FILE_LIMIT: u64 = 32 << 20;
/// The longest side of a picture that a model is shown, in pixels. Some providers refuse larger ones, the others
/// scale them down.
const SIDE: u32 = 2000;
/// The sides that are tried, one after another, until the picture is small enough in bytes.
const SIDES: [u32; 4] = [SIDE, 1400, 1000, 700];
/// The most bytes of a picture that a model is shown: in base64 these are 5 MB, and providers refuse more.
const BYTES: usize = 3_750_000;
/// The most pixels that are decoded.
const PIXELS: u64 = 80_000_000;
/// The longest side that is decoded, in pixels.
const LONGEST: u32 = 40_000;
/// The most bytes of memory for decoding a picture.
const MEMORY: u64 = 4 * PIXELS;
/// The quality of a JPEG that is encoded again, of 100.
const QUALITY: u8 = 82;
/// How long a picture may wait for others, and how long preparing it may take.
const WITHIN: Duration = Duration::from_secs(30);

/// One picture at a time, which bounds the memory of all together.
static ONE_AT_A_TIME: std::sync::LazyLock<Arc<Semaphore>> = std::sync::LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// A picture that can be shown to a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Picture {
    /// `image/png` or `image/jpeg`.
    pub mime: &'static str,
    /// The bytes of the file.
    pub data: Bytes,
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// Width and height of the original, in pixels.
    pub from: (u32, u32),
}

impl Picture {
    /// Returns a note if the picture is smaller than the original; empty otherwise.
    pub(crate) fn note(&self) -> String {
        let ((width, height), (whole_width, whole_height)) = (self.size, self.from);
        if self.size == self.from {
            return String::new();
        }
        format!(
            ", scaled down from {whole_width}×{whole_height} to {width}×{height} pixels (cut out a part of the file to see \
             more of it)"
        )
    }
}

/// Why a picture is not shown; each text follows "it cannot be shown: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotShown {
    /// The format is unknown.
    #[error("{}", files::PICTURE_UNKNOWN)]
    Unknown,
    /// The header or the data is damaged.
    #[error("{}", files::PICTURE_BROKEN)]
    Broken,
    /// Decoding it would take too much memory; holds width and height.
    #[error("{}", files::picture_too_large(*.0, *.1))]
    TooLarge(u32, u32),
    /// The file is larger than [`FILE_LIMIT`].
    #[error("{}", files::PICTURE_TOO_MANY_BYTES)]
    TooManyBytes,
    /// It would have had to wait for other pictures for too long.
    #[error("{}", files::PICTURE_BUSY)]
    Busy,
}

/// Prepares a file as a picture for a model.
pub(crate) async fn prepare(file: Bytes) -> Result<Picture, NotShown> {
    if file.len() as u64 > FILE_LIMIT {
        return Err(NotShown::TooManyBytes);
    }
    let work = async {
        let place = ONE_AT_A_TIME.clone().acquire_owned().await.map_err(|_| NotShown::Busy)?;
        let work = spawn_blocking(move || {
            // Held until decoding has really ended, even if nobody waits for it any more.
            let _place = place;
            made(&file)
        });
        // A panic in a decoder counts as a damaged file.
        work.await.unwrap_or(Err(NotShown::Broken))
    };
    timeout(WITHIN, work).await.unwrap_or(Err(NotShown::Busy))
}

fn made(file: &Bytes) -> Result<Picture, NotShown> {
    let (format, mime) = match image::guess_format(file) {
        Ok(format @ ImageFormat::Png) => (format, "image/png"),
        Ok(format @ ImageFormat::Jpeg) => (format, "image/jpeg"),
        Ok(format @ (ImageFormat::Gif | ImageFormat::WebP)) => (format, ""),
        _ => return Err(NotShown::Unknown),
    };
    let (mut image, orientation) = decoded(file, format)?;
    let from = (image.width(), image.height());
    // PNG and JPEG stay as they are. GIF and WebP may be animated, and not every provider takes them.
    let plain = !mime.is_empty() && orientation == Orientation::NoTransforms;
    if plain && from.0.max(from.1) <= SIDE && file.len() <= BYTES {
        return Ok(Picture { mime, data: file.clone(), size: from, from });
    }
    for side in SIDES {
        if image.width().max(image.height()) > side {
            image = image.thumbnail(side, side);
        }
        if side == SIDE {
            // Rotated after scaling, since rotating a large picture would take its memory twice.
            image.apply_orientation(orientation);
        }
        let size = (image.width(), image.height());
        let turned = (size.0 < size.1) != (from.0 < from.1);
        let from = if turned { (from.1, from.0) } else { from };
        if format != ImageFormat::Jpeg {
            let mut data = Cursor::new(Vec::new());
            image.write_to(&mut data, ImageFormat::Png).map_err(|_| NotShown::Broken)?;
            let data = data.into_inner();
            if data.len() <= BYTES {
                return Ok(Picture { mime: "image/png", data: data.into(), size, from });
            }
        }
        let mut data = Vec::new();
        let flat = on_white(&image);
        JpegEncoder::new_with_quality(&mut data, QUALITY)
            .encode(&flat, flat.width(), flat.height(), ExtendedColorType::Rgb8)
            .map_err(|_| NotShown::Broken)?;
        if data.len() <= BYTES {
            return Ok(Picture { mime: "image/jpeg", data: data.into(), size, from });
        }
    }
    Err(NotShown::TooManyBytes)
}

/// Returns the decoded picture and its orientation.
fn decoded(file: &[u8], format: ImageFormat) -> Result<(DynamicImage, Orientation), NotShown> {
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|_| NotShown::Broken)?;
    let (width, height) = decoder.dimensions();
    if width.max(height) > LONGEST || u64::from(width) * u64::from(height) > PIXELS || decoder.total_bytes() > MEMORY {
        return Err(NotShown::TooLarge(width, height));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let image = match format {
        ImageFormat::Jpeg => jpeg(file)?,
        ImageFormat::Png if !ends_as_png(file) => return Err(NotShown::Broken),
        _ => DynamicImage::from_decoder(decoder).map_err(|_| NotShown::Broken)?,
    };
    // Eight bits a channel are enough.
    let image = match image {
        image @ (DynamicImage::ImageLuma8(_)
        | DynamicImage::ImageLumaA8(_)
        | DynamicImage::ImageRgb8(_)
        | DynamicImage::ImageRgba8(_)) => image,
        image if image.color().has_alpha() => image.into_rgba8().into(),
        image => image.into_rgb8().into(),
    };
    Ok((image, orientation))
}

/// Decodes a JPEG strictly: a truncated or overwritten one would otherwise be shown with a grey area.
fn jpeg(file: &[u8]) -> Result<DynamicImage, NotShown> {
    if !is_whole(file) {
        return Err(NotShown::Broken);
    }
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(LONGEST as usize)
        .set_max_height(LONGEST as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(file, options);
    let pixels = decoder.decode().map_err(|_| NotShown::Broken)?;
    let (width, height) = decoder.dimensions().ok_or(NotShown::Broken)?;
    let (width, height) = (width as u32, height as u32);
    let image = match decoder.get_output_colorspace() {
        Some(ColorSpace::Luma) => GrayImage::from_raw(width, height, pixels).map(DynamicImage::from),
        _ => RgbImage::from_raw(width, height, pixels).map(DynamicImage::from),
    };
    image.ok_or(NotShown::Broken)
}

/// Returns whether a PNG's chunks go on to the last one: decoders stop when they have all pixels.
fn ends_as_png(file: &[u8]) -> bool {
    let mut rest = file.get(8..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        // The chunk's length does not count its type and checksum.
        let whole = u32::from_be_bytes(*length) as usize + 8;
        match behind.split_at_checked(whole) {
            Some((piece, _)) if piece.starts_with(b"IEND") => return true,
            Some((_, next)) => rest = next,
            None => return false,
        }
    }
    false
}

/// Returns whether a JPEG goes on to its end marker: decoders do without it.
fn is_whole(file: &[u8]) -> bool {
    let mut at = 2;
    while let Some(rest) = file.get(at..) {
        at += match rest {
            [0xFF, 0xD9, ..] => return true,
            // Compressed data with its own marks, and padding.
            [0xFF, 0xFF | 0x00 | 0x01 | 0xD0..=0xD7, ..] => 1,
            [0xFF, _, high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
            [_, _, ..] => 1,
            _ => return false,
        };
    }
    false
}

/// Returns a picture without transparency, on white: JPEG has none, and what lies under it may have any colour.
fn on_white(image: &DynamicImage) -> RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let seen = image.to_rgba8();
    RgbImage::from_fn(seen.width(), seen.height(), |x, y| {
        let [red, green, blue, alpha] = seen.get_pixel(x, y).0.map(u16::from);
        image::Rgb([red, green, blue].map(|colour| ((colour * alpha + 255 * (255 - alpha)) / 255) as u8))
    })
}

#[cfg(test)]
#[path = "prepare_tests.rs"]
mod tests;
