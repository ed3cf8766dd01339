"""Attribution by customisation (AbC; Wang, Efros, Zhu, Zhang, ICCV 2023): models customised to
known exemplars draw samples, and heads on image features learn to find the exemplars of a sample.
"""
