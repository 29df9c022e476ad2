import numpy as np
import simplejpeg

HEIGHT, WIDTH = 54, 96


def photograph(seed: int = 0, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Something with the spectrum of a photograph, and edges."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1
    image = np.empty((height, width, 3))
    for c in range(3):
        spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / frequency**1.2
        noise = np.fft.irfft2(spectrum, (height, width))
        image[..., c] = 120 + 40 * noise / noise.std()
    image[height // 3 : height // 2, width // 4 : width // 2] = rng.uniform(0, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, **options) -> bytes:
    return simplejpeg.encode_jpeg(image, 95, "RGB", "444", **options)
