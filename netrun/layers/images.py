"""Layers that read image files: ImageData takes whole images of a list, WindowData windows of a window file."""

from __future__ import annotations

from .inputs import Data


class ImageData(Data):
    """y = the next images of a list, (pixels - mean) * scale

    No bottom. Tops: the images, N C H W in the order B, G, R (or gray), resized to new_height and new_width, then cut
    to crop_size; if named, the labels, (N,).

    A line of the list may carry several labels, whole numbers or not, which give a label top (N, L); which of them
    belong to the file's name is decided by what file is there. Labels keep their fraction, where Caffe would cut it
    off. A batch has the shape of its first image, as with Data, and all of its images have to agree. Images come
    upright if their file says how the camera was held, as OpenCV reads them; resizing is OpenCV's, level by level.
    """

    param = "image_data_param"


class WindowData(Data):
    """y = windows cut out of images, warped to crop_size squares, (pixels - mean) * scale

    No bottom. Tops: the windows, N 3 crop_size crop_size in the order B, G, R, first the background, then
    floor(N * fg_fraction) of objects; the labels, (N,), 0 for background.

    Windows are drawn at random, with repetition: of objects from those with an overlap of fg_threshold or more, of the
    background from those below bg_threshold. With context_pad, or with crop_mode "square", a window is first enlarged
    around its middle, so that context_pad pixels of its surroundings show on every side once it is warped; what
    lies outside of the image stays 0 after the mean is subtracted. ``transform_param`` gives crop_size, mirror,
    mean and scale (Caffe overlooks this scale; the one of ``window_data_param`` goes before it), and a mean that is
    not square is cut out of its middle along both axes.
    """

    param = "window_data_param"
    tops = 2
