from __future__ import annotations

import hashlib
import io

import pytest

from langchain_ctxmgr.budget import vocabulary
from langchain_ctxmgr.budget.tokens import counter_for
from langchain_ctxmgr.budget.vocabulary import (
    download_vocabulary,
    encoding_for,
    has_vocabulary,
    load_vocabulary,
    vocabulary_path,
)


class TestEncodingFor:
    @pytest.mark.parametrize(
        "model",
        [
            "gpt-4o", "gpt-4o-mini-2024-07-18", "gpt-4.1-nano", "gpt-5", "gpt-5.2", "o1", "o3-mini",
            "o4-mini", "openai:gpt-4o", "azure/gpt-4o", "ft:gpt-4o-mini:org::x", "gpt-oss-120b",
            "GPT-4o", "chatgpt-4o-latest",
        ],
    )  # fmt: skip
    def test_newer_models(self, model):
        assert encoding_for(model) == ("o200k_base", True)

    @pytest.mark.parametrize(
        "model", ["gpt-4", "gpt-4-turbo", "gpt-4-1106-preview", "gpt-3.5-turbo", "gpt-35-turbo"]
    )
    def test_older_models(self, model):
        assert encoding_for(model) == ("cl100k_base", True)

    @pytest.mark.parametrize(
        "model", [None, "", "claude-opus-4", "gemini-2.5-pro", "llama3", "o3x"]
    )
    def test_others_get_the_nearest(self, model):
        assert encoding_for(model) == ("o200k_base", False)


class TestVocabularies:
    def test_an_unknown_name_is_refused(self):
        with pytest.raises(ValueError, match="name must be one of"):
            vocabulary_path("p99k")

    def test_is_found_where_tiktoken_keeps_it(self, monkeypatch, tmp_path):
        assert has_vocabulary("o200k_base")
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        assert not has_vocabulary("o200k_base")
        with pytest.raises(FileNotFoundError, match="vocabulary o200k_base is not at"):
            load_vocabulary("o200k_base")

    def test_the_default_folder_is_tiktokens(self, monkeypatch):
        monkeypatch.delenv("TIKTOKEN_CACHE_DIR", raising=False)
        monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
        assert vocabulary_path("o200k_base").parent.name == "data-gym-cache"
        assert vocabulary_path("o200k_base").name == "fb374d419588a4632f3f557e76b4b70aebbca790"

    def test_no_cache_means_no_vocabulary(self, monkeypatch):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
        assert not has_vocabulary("o200k_base")
        with pytest.raises(ValueError, match="TIKTOKEN_CACHE_DIR must name a folder"):
            download_vocabulary("o200k_base")

    def test_a_damaged_file_is_left_alone(self, monkeypatch, tmp_path):
        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
        path = vocabulary_path("o200k_base")
        path.write_bytes(b"half a download")
        assert counter_for("gpt-4o").name == "estimate"
        assert path.read_bytes() == b"half a download"

    def test_a_download_is_checked_and_kept(self, monkeypatch, tmp_path):
        content = b"IQ== 0\n"
        asked = []

        def answer(url, timeout):
            asked.append((url, timeout))
            return io.BytesIO(content)

        monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "new"))
        monkeypatch.setattr(vocabulary.urllib.request, "urlopen", answer)
        with pytest.raises(ValueError, match="7 bytes that are not the vocabulary"):
            download_vocabulary("o200k_base")
        digest = hashlib.sha256(content).hexdigest()
        monkeypatch.setitem(vocabulary._DIGESTS, "o200k_base", digest)
        path = download_vocabulary("o200k_base")
        assert path.read_bytes() == content
        assert asked[0][0].endswith("/o200k_base.tiktoken")
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]
