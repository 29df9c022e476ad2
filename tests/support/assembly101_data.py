"""Annotations of mistakes in the format of Assembly101: recordings of two toys."""

NAMES = (
    "nusar-2021_action_both_9011-b06b_9011_user_id_2021-02-01_154253",
    "nusar-2021_action_both_9012-b06d_9012_user_id_2021-02-01_163713",
    "nusar-2021_action_both_9013-a16_9013_user_id_2021-02-01_162904",
)
# CR line ends; a row without its remark; a last line without an end; the pair in either order.
TEXTS = (
    "10,20,attach,cabin,base,correct,\r"
    "20,35,attach,wheel,base,mistake,worng order\r"
    "40,50,detach,base,wheel,correction,\r"
    "50,60,attach,wheel,base,correct,\r"
    "60,70,attach,roof,cabin,mistake,wrong position",
    "5,15,attach,base,cabin,correct\n20,30,attach,wheel,base,correct,\n40,55,attach,roof,cabin,correct,\n",
    "1,9,attach,boom,boom,correct,\r\n9,9,detach,boom,boom,mistake,shouldn't have happened\r\n",
)


def make_data(folder):
    folder.mkdir(parents=True)
    for name, text in zip(NAMES, TEXTS, strict=True):
        (folder / f"{name}.csv").write_text(text, newline="")
    return folder
