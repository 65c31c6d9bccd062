"""An in-memory source gives what the source gives, and asks it once."""

from mmjax.data.sources.memory import InMemory


class Counted:
    name, class_names = "counted", ["a"]

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 3

    def __getitem__(self, i):
        self.asked.append(i)
        return {"value": i}


def test_examples_are_transformed_once_and_kept():
    source = Counted()
    memory = InMemory(source, lambda example, rng: {"value": 10 * example["value"]})
    assert [memory[i]["value"] for i in (2, 0, 2, 0)] == [20, 0, 20, 0]
    assert source.asked == [2, 0]
    assert len(memory) == 3 and memory.name == "counted" and memory.class_names == ["a"]
