"""`tf.train.Example`, the message of TFRecord files, without TensorFlow.

The three message types are described here and built by protobuf in a pool of their own, so that they
meet no other copy (TensorFlow's, tensorflow-datasets') in the process. Field numbers and names are those of
tensorflow/core/example/{example,feature}.proto; the bytes are the same.
"""

import functools
from collections.abc import Mapping, Sequence

from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

Values = Sequence[bytes] | Sequence[int] | Sequence[float]


_LISTS = {bytes: "bytes_list", float: "float_list", int: "int64_list"}


def pack(features: Mapping[str, Values], kinds: Mapping[str, type] | None = None) -> bytes:
    """Serializes lists of bytes, int or float, in one order whatever the order of the mapping.

    kinds: of lists that may be empty; without it an empty list is of no kind, which some readers refuse.
    """
    example = _example_class()()
    for name, values in features.items():
        feature = example.features.feature[name]
        kind = type(values[0]) if len(values) else (kinds or {}).get(name)
        if kind is None:
            continue
        if kind not in _LISTS:
            raise TypeError(f"feature {name!r} must hold bytes, int or float, got {kind.__name__}")
        content = getattr(feature, _LISTS[kind])
        content.SetInParent()
        content.value.extend(values)
    return example.SerializeToString(deterministic=True)


def unpack(record: bytes) -> dict[str, Values]:
    """The inverse of `pack`. Raises ValueError if the bytes are no tf.train.Example."""
    try:
        example = _example_class().FromString(record)
    except message.DecodeError as error:
        raise ValueError("not a tf.train.Example") from error
    features = {}
    for name, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[name] = getattr(feature, kind).value if kind else ()
    return features


@functools.cache
def _example_class() -> type:
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="ssu_jax/example.proto", package="tensorflow", syntax="proto3")

    def add(parent, name: str) -> descriptor_pb2.DescriptorProto:
        created = parent.add()
        created.name = name
        return created

    for name, kind in (
        ("BytesList", field.TYPE_BYTES),
        ("FloatList", field.TYPE_FLOAT),
        ("Int64List", field.TYPE_INT64),
    ):
        add(file.message_type, name).field.add(name="value", number=1, type=kind, label=field.LABEL_REPEATED)
    feature = add(file.message_type, "Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, kind) in enumerate(
        (("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")), start=1
    ):
        feature.field.add(name=name, number=number, type=field.TYPE_MESSAGE, type_name=f".tensorflow.{kind}",
                          label=field.LABEL_OPTIONAL, oneof_index=0)  # fmt: skip
    features = add(file.message_type, "Features")
    entry = add(features.nested_type, "FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=".tensorflow.Feature",
                    label=field.LABEL_OPTIONAL)  # fmt: skip
    features.field.add(name="feature", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED,
                       type_name=".tensorflow.Features.FeatureEntry")  # fmt: skip
    add(file.message_type, "Example").field.add(
        name="features", number=1, type=field.TYPE_MESSAGE, type_name=".tensorflow.Features", label=field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))
