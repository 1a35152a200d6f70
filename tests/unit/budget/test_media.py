from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_ctxmgr.budget.media import Size, audio_tokens, file_tokens, image_tokens, tile_tokens


def count(text):
    return len(text.split())


def png(width, height):
    return b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + struct.pack(">II", width, height) + b"\x08" * 40


def gif(width, height):
    return b"GIF89a" + struct.pack("<HH", width, height) + b"\0" * 40


def jpeg(width, height):
    exif = b"\xff\xe1" + struct.pack(">H", 40_002) + b"\xff\xc0" * 20_000
    fill = b"\xff"
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + b"\0" * 30
    return b"\xff\xd8" + exif + fill + frame


def webp_lossy(width, height):
    return b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", width, height) + b"\0" * 9


def webp_lossless(width, height):
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\0\0\0\0WEBPVP8L" + b"\0\0\0\0\x2f" + struct.pack("<I", bits) + b"\0" * 20


def webp_extended(width, height):
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + sides + b"\0" * 9


class TestTileTokens:
    @pytest.mark.parametrize(
        ("size", "tokens"),
        [
            (Size(1024, 1024), 765),  # OpenAI's own example
            (Size(2048, 4096), 1105),  # the same
            (Size(512, 512), 255),
            (Size(1, 1), 255),
            (Size(10_000, 10), 85 + 4 * 170),
        ],
    )
    def test_counts_as_openai_does(self, size, tokens):
        assert tile_tokens(size) == tokens

    def test_low_detail_costs_the_base(self):
        assert tile_tokens(Size(4096, 4096), detail="low") == 85

    def test_an_unknown_size_costs_the_base(self):
        assert tile_tokens(None) == 85

    @given(st.integers(1, 10**6), st.integers(1, 10**6))
    def test_no_picture_costs_more_than_the_largest(self, width, height):
        assert 255 <= tile_tokens(Size(width, height)) <= 85 + 8 * 170


class TestImageTokens:
    @pytest.mark.parametrize("picture", [png, gif, jpeg, webp_lossy, webp_lossless, webp_extended])
    def test_reads_the_size_from_the_header(self, picture):
        data = base64.b64encode(picture(1024, 1024)).decode()
        for block in (
            {"type": "image_url", "image_url": {"url": f"data:image/any;base64,{data}"}},
            {"type": "image_url", "image_url": f"data:image/any;base64,{data}"},
            {"type": "image", "source_type": "base64", "data": data},
            {"type": "image", "base64": data},
            {"type": "image", "source": {"type": "base64", "data": data}},
            {"type": "image", "data": picture(1024, 1024)},
            {"type": "input_image", "image_url": f"data:image/any;base64,{data}"},
        ):
            assert image_tokens(block, count) == 765

    def test_low_detail_is_read(self):
        url = "data:image/png;base64," + base64.b64encode(png(2000, 2000)).decode()
        block = {"type": "image_url", "image_url": {"url": url, "detail": "low"}}
        assert image_tokens(block, count) == 85

    def test_an_address_costs_the_base(self):
        assert image_tokens({"image_url": {"url": "https://example.com/a.png"}}, count) == 85
        assert image_tokens({"type": "image", "file_id": "f1"}, count) == 85

    def test_a_stated_size_counts(self):
        block = {"type": "image", "url": "https://example.com/a", "width": 1024, "height": 1024}
        assert image_tokens(block, count) == 765

    def test_a_description_standing_in_costs_its_length(self):
        assert image_tokens({"type": "image", "caption": "two dogs on a beach"}, count) == 5

    @given(
        st.binary(max_size=60), st.sampled_from([b"\xff\xd8", b"RIFF", b"GIF89a", b"\x89PNG\r\n"])
    )
    @settings(max_examples=200)
    def test_a_broken_header_costs_the_base_or_a_size(self, tail, head):
        data = base64.b64encode(head + tail).decode()
        assert image_tokens({"type": "image", "base64": data[:-3]}, count) >= 85


class TestFiles:
    def test_plain_text_costs_its_text(self):
        data = base64.b64encode(b"four words of text").decode()
        assert file_tokens({"type": "file", "base64": data, "mime_type": "text/plain"}, count) == 4
        block = {"type": "document", "source": {"type": "text", "data": "three more words"}}
        assert file_tokens(block, count) == 3
        assert file_tokens({"type": "text-plain", "text": "two words"}, count) == 2

    def test_a_pdf_costs_by_its_pages(self):
        pdf = b"%PDF-1.4 /Type /Pages " + b"<< /Type /Page >>" * 3
        data = "data:application/pdf;base64," + base64.b64encode(pdf).decode()
        assert file_tokens({"type": "file", "file": {"file_data": data}}, count) == 85 + 9_000
        packed = base64.b64encode(b"%PDF-1.7" + b"x" * 1_592).decode()
        assert file_tokens({"type": "file", "base64": packed}, count) == 85 + 100

    def test_other_files_cost_by_length(self):
        data = base64.b64encode(b"\x00" * 4_000).decode()
        assert file_tokens({"type": "file", "base64": data}, count) == 85 + 1_000
        assert file_tokens({"type": "file", "file_id": "f"}, count) >= 85
        assert file_tokens({"type": "file"}, count) == 85

    def test_a_recording_costs_by_its_length(self):
        data = base64.b64encode(b"\x00" * 4_000).decode()
        block = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
        assert audio_tokens(block) == 85 + 10
        assert audio_tokens({"type": "audio"}) == 85
