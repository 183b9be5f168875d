"""What a PNG or JPEG file holds beside its pixels: its orientation, and the file without the rest.

Pillow refuses some files for metadata that a viewer passes over: a colour profile that is too
large, a text with a wrong checksum, an EXIF block with damaged entries.
"""

import struct
import zlib

ORIENTATION = 0x0112  # the EXIF tag
_INTEGERS = {1: 'B', 3: 'H', 4: 'I', 6: 'b', 8: 'h', 9: 'i'}  # types of a TIFF tag, for `struct`

_PNG, _JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8'
JPEG_END = b'\xff\xd9'
_PNG_ANCILLARY = 0x20  # the bit of a chunk's first letter that says that it may be passed over
_TRANSPARENCY_BYTES = {0: 2, 2: 6}  # of the chunk tRNS, for the colour types grey and RGB
_SCAN, _COMMENT, _APP0, _APP1, _APP14, _APP15 = 0xDA, 0xFE, 0xE0, 0xE1, 0xEE, 0xEF
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers of JPEG without content


def orientation(exif: bytes) -> int | None:
    """Returns the orientation, 1 to 8, in an EXIF block; None if it says nothing about it.

    The entries of the first directory have 12 bytes each (TIFF 6.0, section 2). The tag is found
    by its number alone, so damage to other entries does no harm.
    """
    while exif.startswith(b'Exif\0\0'):
        exif = exif[6:]
    order = {b'II': '<', b'MM': '>'}.get(exif[:2])
    if not order or len(exif) < 8:
        return None
    (start,) = struct.unpack_from(order + 'I', exif, 4)
    if start + 2 > len(exif):
        return None
    (entries,) = struct.unpack_from(order + 'H', exif, start)
    first = start + 2
    for place in range(first, min(first + 12 * entries, len(exif) - 11), 12):
        tag, kind, count = struct.unpack_from(order + 'HHI', exif, place)
        if tag == ORIENTATION and kind in _INTEGERS and count:
            code = order + _INTEGERS[kind]
            place += 8
            if count * struct.calcsize(code) > 4:  # the value is elsewhere
                (place,) = struct.unpack_from(order + 'I', exif, place)
            if place + struct.calcsize(code) <= len(exif):
                (value,) = struct.unpack_from(code, exif, place)
                return value if 1 <= value <= 8 else None
    return None


def without_metadata(content: bytes) -> bytes | None:
    """Returns a PNG or JPEG file with nothing but what its picture depends on.

    That is, beside the pixels, the palette, the transparent colour, the colour transform and the
    EXIF block. For files of other kinds it returns None.
    """
    if content.startswith(_PNG):
        return _png(content)
    if content.startswith(_JPEG):
        return _jpeg(content)
    return None


def _png(content):
    """Keeps the critical chunks, and tRNS and eXIf if they are intact (PNG, 5.3)."""
    kept, place = [_PNG], len(_PNG)
    while place + 12 <= len(content):
        length, kind = struct.unpack_from('>I4s', content, place)
        end = place + 12 + length
        if not kind[0] & _PNG_ANCILLARY or (
            kind in (b'tRNS', b'eXIf') and _is_intact(content, place, end, kind)
        ):
            kept.append(content[place:end])
        place = end
    return b''.join(kept)


def _is_intact(content, place, end, kind):
    if end > len(content):
        return False
    colour_type, length = content[25], end - place - 12
    if kind == b'tRNS' and _TRANSPARENCY_BYTES.get(colour_type, length) != length:
        return False
    (checksum,) = struct.unpack_from('>I', content, end - 4)
    return zlib.crc32(content[place + 4 : end - 4]) == checksum


def _jpeg(content):
    """Keeps all segments but comments and those of applications, except JFIF, EXIF and Adobe."""
    kept, place = [_JPEG], len(_JPEG)
    while (place := content.find(b'\xff', place)) >= 0 and place + 4 <= len(content):
        marker = content[place + 1]
        if marker in (0x00, 0xFF, *_ALONE):  # stray bytes, which decoders pass over too
            place += 1
            continue
        if marker == _SCAN:
            return b''.join([*kept, content[place:]])
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4])
        body = content[place + 4 : end]
        if (
            (marker != _COMMENT and not _APP0 <= marker <= _APP15)
            or (marker == _APP0 and body.startswith(b'JFIF\0') and len(body) >= 14)
            or (marker == _APP1 and body.startswith(b'Exif\0\0'))
            or (marker == _APP14 and body.startswith(b'Adobe') and len(body) >= 12)
        ):
            kept.append(content[place:end])
        place = end
    return content  # no picture follows
