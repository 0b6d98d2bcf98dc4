"""Sound in the codec of another container."""

from __future__ import annotations

from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from nst.infer.video.reader import AnyPacket


class Transcoder:
    """Encodes a stream of sound anew; `make` finds out whether that can be."""

    def __init__(
        self, container: av.container.OutputContainer, encoder: str, layout: str, rate: int
    ) -> None:
        stream = container.add_stream(encoder, rate=rate, layout=layout)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._resampler = AudioResampler(stream.format, layout, rate)

    @classmethod
    def make(
        cls, container: av.container.OutputContainer, source: AudioStream, codec: str
    ) -> Transcoder | None:
        """One for the layout and rate nearest to the source's that the codec takes, if any."""
        encoder = {"opus": "libopus", "vorbis": "libvorbis"}.get(codec, codec)
        surround = ["5.1"] if source.channels > 2 else []
        for layout in (source.layout.name, *surround, "stereo"):
            for rate in (source.rate, 48_000):
                try:
                    trial = av.CodecContext.create(encoder, "w")
                    assert isinstance(trial, AudioCodecContext)
                    trial.sample_rate, trial.layout = rate, layout
                    formats = trial.codec.audio_formats
                    trial.format = formats[0] if formats else source.format
                    trial.open()
                except (av.FFmpegError, ValueError):
                    continue
                return cls(container, encoder, layout, rate)
        return None

    def encode(self, packet: AnyPacket) -> list[AnyPacket]:
        """What becomes of a packet of the source; nothing, if it is damaged."""
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            return []
        made: list[AnyPacket] = []
        for frame in frames:
            for part in self._resampler.resample(frame):
                made += self._stream.encode(part)
        return made

    def flush(self) -> list[AnyPacket]:
        """What is left at the end."""
        made: list[AnyPacket] = []
        for part in self._resampler.resample(None):
            made += self._stream.encode(part)
        return made + self._stream.encode(None)
