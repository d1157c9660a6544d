#!/usr/bin/env python3
"""Trains src/dummy/tokenizer.json, the byte-level BPE of dummy models.

    pip install tokenizers==0.23.3
    cargo fetch
    scripts/train_dummy_tokenizer.py ~/.cargo/registry/src/*/ src/dummy/tokenizer.json

The text: documentation and source of crates that Cargo.lock pins (all MIT or Apache-2.0) for English and code, and
the Chinese sentences below. The same crates and the same `tokenizers` give the same file.
"""
import re
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

CRATES = ["axum-0.8.9", "clap_builder-4.6.7", "rayon-1.12.0", "regex-1.13.1", "tokio-1.54.1"]
VOCABULARY = 4096
CODE_SHARE = 4  # One code line in so many is used: prompts are prose more often than code.
CHINESE = """
今天的天气很好，我们一起去公园散步吧。人工智能正在改变我们的生活和工作方式。
大语言模型可以回答问题、写文章、翻译文字，也可以帮助我们编写程序。
请用简单的话解释什么是机器学习，并给出一个例子。这个问题的答案是什么？
服务器每秒可以处理多少个请求，取决于批处理大小、显存和网络的速度。
首个词元的时间和词元之间的时间是衡量推理性能的两个重要指标。
中国有很长的历史和丰富的文化，北京是中国的首都，上海是最大的城市。
如果你有任何问题，请告诉我，我会尽力帮助你。谢谢你的帮助，再见！
我们需要测试不同的精度、并发数和输入长度，然后比较它们的结果。
他说：“学习一门新的语言需要时间和耐心。”她认为这是对的，但是也可以很有趣。
数据应该是可以重复的，否则我们不能相信它。第一步是下载模型，第二步是量化，第三步是构建引擎。
"""


def documents(registry: Path):
    yield from [CHINESE] * 8
    for crate in CRATES:
        for path in sorted(p for p in (registry / crate).rglob("*") if p.suffix in (".rs", ".md")):
            text = path.read_text(encoding="utf-8")
            if path.suffix == ".md":
                yield text
                continue
            prose = re.findall(r"^\s*//[/!]?[ ]?(.*)$", text, re.MULTILINE)
            code = [line for line in text.splitlines() if not line.lstrip().startswith("//")]
            yield "\n".join(prose)
            yield "\n".join(code[::CODE_SHARE])


def main(registry: str, out: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents(Path(registry)), trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY
    tokenizer.save(out, pretty=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
