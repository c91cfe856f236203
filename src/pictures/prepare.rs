//! From a file's bytes to a picture that every provider takes, or to a sentence that says why there is none.
//!
//! The bytes come from strangers. They are decoded whole, one picture at a time and off the async threads, within limits
//! on pixels and memory that are checked against the header before anything is unpacked.

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

/// The most bytes of a file that is looked at.
pub const FILE_LIMIT: u64 = 32 << 20;
/// The longest side of a picture that a model is shown, in pixels. Larger ones are refused by some providers and scaled
/// down by all others.
const SIDE: u32 = 2000;
/// Sides that are tried, one after the other, until the picture is small enough in bytes.
const SIDES: [u32; 4] = [SIDE, 1400, 1000, 700];
/// The most bytes of a picture that a model is shown: in base64 they are 5 MB, and providers refuse more.
const BYTES: usize = 3_750_000;
/// The most pixels that are unpacked.
const PIXELS: u64 = 80_000_000;
/// The longest side that is unpacked.
const LONGEST: u32 = 40_000;
/// The most memory that unpacking one picture takes.
const MEMORY: u64 = 4 * PIXELS;
/// How good a JPEG is that has to be made anew, of a hundred.
const QUALITY: u8 = 82;
/// How long a picture waits for those before it, and may then take itself.
const WITHIN: Duration = Duration::from_secs(30);

/// Only one at a time, so that pictures together never take more memory than one.
static ONE_AT_A_TIME: std::sync::LazyLock<Arc<Semaphore>> = std::sync::LazyLock::new(|| Arc::new(Semaphore::new(1)));

/// A picture that a model can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// `image/png` or `image/jpeg`.
    pub mime: &'static str,
    /// The file.
    pub data: Bytes,
    /// Its width and height in pixels.
    pub size: (u32, u32),
    /// Width and height of the file that it was made of.
    pub from: (u32, u32),
}

impl Picture {
    /// Returns a note on what of the file is shown; nothing if all of it is.
    pub fn note(&self) -> String {
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

/// Why a picture is not shown; each reads on after "it cannot be shown: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// Not one of the known formats.
    #[error("{}", files::PICTURE_UNKNOWN)]
    Unknown,
    /// The header or the data make no sense.
    #[error("{}", files::PICTURE_BROKEN)]
    Broken,
    /// Unpacked, it would take too much memory.
    #[error("{}", files::picture_too_large(*.0, *.1))]
    TooLarge(u32, u32),
    /// So many bytes are more than are looked at.
    #[error("{}", files::PICTURE_TOO_MANY_BYTES)]
    TooManyBytes,
    /// Other pictures are in the way.
    #[error("{}", files::PICTURE_BUSY)]
    Busy,
}

/// Makes a picture that a model can be shown of a file.
pub async fn prepare(file: Bytes) -> Result<Picture, NotShown> {
    if file.len() as u64 > FILE_LIMIT {
        return Err(NotShown::TooManyBytes);
    }
    let work = async {
        let place = ONE_AT_A_TIME.clone().acquire_owned().await.map_err(|_| NotShown::Busy)?;
        let work = spawn_blocking(move || {
            // Held until the work has really ended, though nobody may wait for it any more.
            let _place = place;
            made(&file)
        });
        // A panic of a decoder is one more way to be broken.
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
    // What every provider takes stays as it is. GIF and WebP may move, and not all read them.
    let plain = !mime.is_empty() && orientation == Orientation::NoTransforms;
    if plain && from.0.max(from.1) <= SIDE && file.len() <= BYTES {
        return Ok(Picture { mime, data: file.clone(), size: from, from });
    }
    for side in SIDES {
        if image.width().max(image.height()) > side {
            image = image.thumbnail(side, side);
        }
        if side == SIDE {
            // Once it is small: turning a large one would take its memory twice.
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

/// Returns the unpacked picture, and how it is to be turned.
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
    // Eight bits a colour are all that is shown.
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

/// Unpacks a JPEG, strictly: what is cut off or overwritten would be shown as a grey area otherwise.
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

/// Returns whether a PNG's pieces go on to the last one: decoders stop when they have all pixels.
fn ends_as_png(file: &[u8]) -> bool {
    let mut rest = file.get(8..).unwrap_or_default();
    while let Some((length, behind)) = rest.split_first_chunk::<4>() {
        // Its name and its checksum are not counted.
        let whole = u32::from_be_bytes(*length) as usize + 8;
        match behind.split_at_checked(whole) {
            Some((piece, _)) if piece.starts_with(b"IEND") => return true,
            Some((_, next)) => rest = next,
            None => return false,
        }
    }
    false
}

/// Returns whether a JPEG goes on to its end marker: decoders make do with less.
fn is_whole(file: &[u8]) -> bool {
    let mut at = 2;
    while let Some(rest) = file.get(at..) {
        at += match rest {
            [0xFF, 0xD9, ..] => return true,
            // Packed data with its own marks, and filling.
            [0xFF, 0xFF | 0x00 | 0x01 | 0xD0..=0xD7, ..] => 1,
            [0xFF, _, high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
            [_, _, ..] => 1,
            _ => return false,
        };
    }
    false
}

/// Returns a picture without transparency: JPEG has none, and what lies under it may be any colour.
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
