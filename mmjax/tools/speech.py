"""What is said in a recording, by a Whisper."""

from mmjax.speech.fallback import Decoder
from mmjax.speech.recording import Recording
from mmjax.speech.windows import Transcriber
from mmjax.tools.run import Given
from mmjax.transcribe import make_decoder, open_model


class Speech:
    """A tool: a language such as "fr", or "" to detect it -> what the latest recording says."""

    def __init__(self, decoder: Decoder):
        self._decoder = decoder

    def __call__(self, arguments: str, given: Given) -> str:
        if not given.audio:
            raise ValueError("there is no recording")
        special, language = self._decoder.special, arguments.strip() or None
        special.check("transcribe", language)
        path = given.audio[-1]
        transcriber = Transcriber(self._decoder, language if special.languages else "en")
        ((_, result),) = transcriber.one_by_one([(path, Recording(path))])
        if isinstance(result, ValueError):
            raise result
        return result.text or "nothing is said"


def open_speech(path: str) -> Speech:
    """The tool of a Whisper's folder.

    Raises:
      ValueError: see `open_model`.
    """
    return Speech(make_decoder(open_model(path), timestamps=False))
