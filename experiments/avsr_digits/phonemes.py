"""Records the phonemes of the ten digits and their durations, as espeak-ng speaks them.

    apt-get download espeak-ng-data libespeak-ng1 libpcaudio0 libsonic0
    for package in *.deb; do dpkg -x $package espeak; done
    LD_LIBRARY_PATH=$(echo espeak/usr/lib/*-linux-gnu) python -m experiments.avsr_digits.phonemes \
        espeak/usr/lib/*-linux-gnu/espeak-ng-data

It prints the table PHONEMES of mmjax/data/builders/lips.py and says whether that is the same.
"""

import ctypes
import sys

from mmjax.data.builders.lips import DIGITS, PHONEMES

# Of espeak-ng's speak_lib.h.
_RETRIEVAL, _PHONEME_EVENTS, _IPA, _UTF8 = 1, 1, 2, 1
_LAST, _PHONEME = 0, 7


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


def record(folder: str) -> dict[str, tuple[tuple[str, int], ...]]:
    """(phoneme, ms) of each digit; `folder` is espeak-ng-data."""
    library = ctypes.CDLL("libespeak-ng.so.1")
    events: list[tuple[str, int]] = []

    @ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
    )
    def called(samples, count, given):
        del samples, count
        i = 0
        while given[i].type != _LAST:
            if given[i].type == _PHONEME:
                events.append((given[i].id.string.decode(), given[i].audio_position))
            i += 1
        return 0

    library.espeak_Initialize(_RETRIEVAL, 0, folder.encode(), _PHONEME_EVENTS | _IPA)
    library.espeak_SetSynthCallback(called)
    library.espeak_SetVoiceByName(b"en-us")
    found = {}
    for word in DIGITS:
        events.clear()
        text = word.encode()
        library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None)
        library.espeak_Synchronize()
        # A phoneme lasts until the next one; the word ends where a nameless one begins.
        found[word] = tuple(
            (name, after - begin) for (name, begin), (_, after) in zip(events, events[1:]) if name
        )
    return found


def main() -> int:
    """The command; exits with 1 if the table differs."""
    found = record(sys.argv[1])
    for word, phonemes in found.items():
        print(f"{word!r}: {phonemes},")
    same = found == PHONEMES
    print("the same as PHONEMES" if same else "not the same as PHONEMES", file=sys.stderr)
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
