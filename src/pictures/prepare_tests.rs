//! Tests with good, large and broken pictures.

use image::{Rgb, RgbImage, RgbaImage};
use proptest::prelude::*;

use super::*;

/// A picture in which every pixel differs from its neighbours, so that it does not compress to nothing.
fn drawn(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 7 + y) as u8, (y * 13) as u8, (x ^ y) as u8]))
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Bytes {
    let mut data = Cursor::new(Vec::new());
    image.into().write_to(&mut data, format).unwrap();
    data.into_inner().into()
}

/// Returns the size that a picture's own bytes state.
fn size_of(picture: &Picture) -> (u32, u32) {
    let image = image::load_from_memory(&picture.data).unwrap();
    (image.width(), image.height())
}

#[tokio::test]
async fn what_every_provider_takes_stays_as_it_is() {
    for (format, mime) in [(ImageFormat::Png, "image/png"), (ImageFormat::Jpeg, "image/jpeg")] {
        let file = encoded(drawn(320, 200), format);
        let picture = prepare(file.clone()).await.unwrap();
        assert_eq!((picture.mime, &picture.data, picture.size), (mime, &file, (320, 200)));
        assert_eq!(picture.note(), "");
    }
}

#[tokio::test]
async fn large_pictures_are_scaled_to_what_every_provider_takes() {
    for (width, height, shown, format) in [
        (9000, 1500, (2000, 333), ImageFormat::Jpeg),
        (1280, 16_384, (156, 2000), ImageFormat::Png),
        (2001, 100, (2000, 100), ImageFormat::Png),
    ] {
        let picture = prepare(encoded(drawn(width, height), format)).await.unwrap();
        assert_eq!((picture.size, picture.from), (shown, (width, height)));
        assert_eq!(size_of(&picture), shown);
        assert!(picture.data.len() <= BYTES);
        assert!(picture.note().contains(&format!("from {width}×{height} to {}×{} pixels", shown.0, shown.1)));
    }
}

#[tokio::test]
async fn formats_that_not_all_read_become_png() {
    for format in [ImageFormat::Gif, ImageFormat::WebP] {
        let picture = prepare(encoded(DynamicImage::from(drawn(64, 48)).into_rgba8(), format)).await.unwrap();
        assert_eq!((picture.mime, size_of(&picture)), ("image/png", (64, 48)), "{format:?}");
    }
}

#[tokio::test]
async fn what_is_too_heavy_as_png_becomes_a_jpeg_on_white() {
    let mut seed = 1_u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let image =
        RgbaImage::from_fn(1600, 1600, |x, _| image::Rgba([noise(), noise(), noise(), if x < 8 { 0 } else { 255 }]));
    let file = encoded(image, ImageFormat::Png);
    assert!(file.len() > BYTES);
    let picture = prepare(file).await.unwrap();
    assert!(picture.data.len() <= BYTES && picture.mime == "image/jpeg");
    let shown = image::load_from_memory(&picture.data).unwrap().into_rgb8();
    assert!(shown.get_pixel(0, 0).0.iter().all(|colour| *colour > 200), "{:?}", shown.get_pixel(0, 0));
}

#[tokio::test]
async fn broken_pictures_are_refused_whatever_their_header_says() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let whole = encoded(DynamicImage::from(drawn(640, 480)).into_rgb8(), format);
        let half = whole.slice(..whole.len() / 2);
        assert_eq!(prepare(half).await, Err(NotShown::Broken), "half of a {format:?}");
        let head = whole.slice(..40);
        assert_eq!(prepare(head).await, Err(NotShown::Broken), "the head of a {format:?}");
        let mut overwritten = whole.to_vec();
        let from = overwritten.len() / 3;
        overwritten[from..].fill(0xA5);
        assert_eq!(prepare(overwritten.into()).await, Err(NotShown::Broken), "an overwritten {format:?}");
    }
    assert_eq!(prepare(Bytes::from_static(b"hello")).await, Err(NotShown::Unknown));
    assert_eq!(prepare(Bytes::from(vec![0; FILE_LIMIT as usize + 1])).await, Err(NotShown::TooManyBytes));
}

#[tokio::test]
async fn a_picture_that_lacks_only_its_end_is_broken() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Gif, ImageFormat::WebP] {
        let whole = encoded(DynamicImage::from(drawn(640, 480)).into_rgb8(), format);
        for cut in [1, 2, 12, whole.len() / 20] {
            let short = whole.slice(..whole.len() - cut);
            // GIF and WebP are encoded again, so what can be decoded of them is complete.
            let mended = matches!(format, ImageFormat::Gif | ImageFormat::WebP);
            match prepare(short).await {
                Err(why) => assert_eq!(why, NotShown::Broken, "{format:?} without {cut}"),
                Ok(_) => assert!(mended, "{format:?} without its last {cut} bytes is shown"),
            }
        }
    }
}

#[tokio::test]
async fn a_bomb_is_refused_by_its_header() {
    // A PNG that claims 60,000 × 60,000 pixels; nothing of it is decoded.
    let mut bomb = encoded(drawn(8, 8), ImageFormat::Png).to_vec();
    bomb[16..20].copy_from_slice(&60_000_u32.to_be_bytes());
    bomb[20..24].copy_from_slice(&60_000_u32.to_be_bytes());
    let crc = crc32(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(prepare(bomb.into()).await, Err(NotShown::TooLarge(60_000, 60_000)));
}

/// Computes PNG's checksum, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

#[tokio::test]
async fn a_photo_is_turned_as_its_camera_was_held() {
    let jpeg = encoded(drawn(200, 100), ImageFormat::Jpeg);
    // An Exif block that says "rotate by 90 degrees".
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let photo = [&jpeg[..2], exif, &jpeg[2..]].concat();
    let picture = prepare(photo.into()).await.unwrap();
    assert_eq!((size_of(&picture), picture.note().as_str()), ((100, 200), ""));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever follows a good signature, the result is a picture that decodes or a sentence.
    #[test]
    fn any_bytes_end_in_a_picture_or_a_sentence(
        signature in prop::sample::select(vec![
            &b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"[..], b"\xff\xd8\xff\xe0", b"GIF89a", b"RIFF\x40\0\0\0WEBPVP8 ",
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let file = Bytes::from([signature, &rest].concat());
        if let Ok(picture) = made(&file) {
            prop_assert!(image::load_from_memory(&picture.data).is_ok());
        }
    }
}
