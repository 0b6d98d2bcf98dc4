"""Transcodes sound whose codec the target container does not take."""

from __future__ import annotations

from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream

from nst.infer.video.reader import AnyPacket


class Transcoder:
    """Decodes an audio stream and encodes it with another codec.

    Use `make`, which finds a channel layout and a sample rate that the encoder takes.
    """

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
        """Return a transcoder to `codec`, or None if its encoder can't be opened.

        The source's layout and sample rate are tried first, then 5.1, stereo and 48 kHz.
        """
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
        """Transcode a packet of the source; return nothing if it is damaged."""
        try:
            frames: list[Any] = packet.decode()
        except av.FFmpegError:
            return []
        return [made for frame in frames for made in self._encode(frame)]

    def flush(self) -> list[AnyPacket]:
        """Return the packets that remain at the end."""
        return self._encode(None) + self._stream.encode(None)

    def _encode(self, frame: Any) -> list[AnyPacket]:
        parts = self._resampler.resample(frame)
        return [packet for part in parts for packet in self._stream.encode(part)]
