"""Bytes of a text document to text: UTF-8, else what charset-normalizer finds."""

import re

from charset_normalizer import CharsetMatch, from_bytes

from streams.errors import UnreadableDocument

_BOMS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_BINARY_STARTS = (
    b"%PDF-",
    b"PK\x03\x04",
    b"\x89PNG",
    b"\xff\xd8\xff",
    b"GIF8",
    b"\x7fELF",
    b"\x1f\x8b",
    b"BZh",
    b"7z\xbc\xaf",
    b"\xd0\xcf\x11\xe0",
    b"MZ\x90\x00",
    b"SQLite format 3",
)

# Detection reads samples; more than this adds seconds and no certainty.
_DETECTION_BYTES = 256 * 1024
# Text has hardly any control characters but white space and escape sequences of terminals.
_MAX_CONTROL_SHARE = 0.02
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\r\f\v\x1b\x08")
# How much the letters must look like a language. A guess below it is as likely nonsense that nobody would notice.
_MIN_COHERENCE = 0.1
_UTF8_SEQUENCE = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_STRAY_BYTE = re.compile(rb"[\x80-\xff]")
_SAMPLE_BYTES = 64 * 1024


def decode(data: bytes, document_id: str) -> str:
    """The text; a byte order mark is left out, nothing else is changed (no normalisation: offsets must fit).

    Raises:
        UnreadableDocument: ``binary-content`` or ``undecodable-text``.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            text = _strict(data, encoding, document_id)
            if "\x00" in text:
                raise _binary(document_id)
            return text
    if data.startswith(_BINARY_STARTS) or _looks_binary(data):
        raise _binary(document_id)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _detected(data, document_id, error)


def _looks_binary(data: bytes) -> bool:
    sample = data[:_SAMPLE_BYTES]
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    # NUL anywhere: no text has it, and PostgreSQL cannot store it.
    return b"\x00" in data or controls > len(sample) * _MAX_CONTROL_SHARE


def _strict(data: bytes, encoding: str, document_id: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _undecodable(document_id, error) from error


def _detected(data: bytes, document_id: str, error: UnicodeDecodeError) -> str:
    # The bytes around the first offence say more than the start of a file that is ASCII for a megabyte.
    start = max(0, error.start - _DETECTION_BYTES // 2)
    sample = data[start : start + _DETECTION_BYTES]
    if len(_UTF8_SEQUENCE.findall(sample)) > len(_STRAY_BYTE.findall(_UTF8_SEQUENCE.sub(b"", sample))):
        raise _undecodable(document_id, error) from error  # UTF-8 with broken places
    matches = [match for match in from_bytes(sample) if match.coherence >= _MIN_COHERENCE]
    if not matches:
        raise _undecodable(document_id, error) from error
    # Sister encodings often explain a short text equally well; the common one is then the likeliest.
    equals = {match.encoding for match in matches if (match.chaos, match.coherence) == _merit(matches[0])}
    try:
        return data.decode("cp1252" if "cp1252" in equals else matches[0].encoding)
    except (UnicodeDecodeError, LookupError) as again:
        raise _undecodable(document_id, error) from again


def _merit(match: CharsetMatch) -> tuple[float, float]:
    return match.chaos, match.coherence


def _binary(document_id: str) -> UnreadableDocument:
    return UnreadableDocument(
        "binary-content",
        f"{document_id!r} holds binary data, not text: give it its right ending or content type, or leave it out.",
    )


def _undecodable(document_id: str, error: UnicodeDecodeError) -> UnreadableDocument:
    return UnreadableDocument(
        "undecodable-text",
        f"{document_id!r} is not valid UTF-8 (byte {error.start}) and no other encoding fits: save it as UTF-8.",
    )
